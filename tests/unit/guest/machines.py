"""Random machines within the bounds of the API, for the round trips of record and description."""

from hypothesis import strategies as st

from guestlet.pci.layout import DeviceBus, Family, place
from guestlet.qemu.machine import (
    Accelerator,
    AioMode,
    BridgeNet,
    CacheMode,
    Cpu,
    DiscardMode,
    Disk,
    DiskBus,
    FileSource,
    FirmwareType,
    HostForward,
    ImageFormat,
    IsolatedNet,
    KernelBoot,
    Machine,
    Nic,
    NicModel,
    Protocol,
    TapNet,
    UserNet,
    WatchdogAction,
)
from guestlet.qemu.pci_requests import pci_requests
from unit.guest.guest_samples import UUID

words = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)
maybe = st.none() | words
orders = st.none() | st.integers(1, 255)
forwards = st.builds(
    HostForward,
    protocol=st.sampled_from(Protocol),
    host_address=st.sampled_from(["127.0.0.1", "0.0.0.0"]),
    host_port=st.integers(1, 65535),
    guest_port=st.integers(1, 65535),
)
backends = st.one_of(
    st.builds(UserNet, host_forwards=st.lists(forwards, max_size=3).map(tuple)),
    st.builds(BridgeNet, bridge=words),
    st.builds(TapNet, up_script=maybe, down_script=maybe),
    st.just(IsolatedNet()),
)
sources = st.builds(
    FileSource,
    pool=words,
    image=words,
    format=st.sampled_from(ImageFormat),
    backing_image=maybe,
    backing_format=st.none() | st.sampled_from(ImageFormat),
)


@st.composite
def disks(draw: st.DrawFn) -> tuple[Disk, ...]:
    names = draw(st.lists(words, unique=True, max_size=4))
    found = []
    for number, name in enumerate(names):
        bus = draw(st.sampled_from(DiskBus))
        found.append(
            Disk(
                name=name,
                bus=bus,
                source=draw(sources),
                size_bytes=draw(st.integers(1, 2**50)),
                read_only=draw(st.booleans()),
                cdrom=draw(st.booleans()),
                serial=draw(words),
                cache=draw(st.sampled_from(CacheMode)),
                aio=draw(st.sampled_from(AioMode)),
                discard=draw(st.sampled_from(DiscardMode)),
                io_thread=draw(st.booleans()),
                boot_order=draw(orders),
                unit=number if bus in (DiskBus.SCSI, DiskBus.SATA) else None,
            )
        )
    return tuple(found)


@st.composite
def networks(draw: st.DrawFn) -> tuple[Nic, ...]:
    names = draw(st.lists(words, unique=True, max_size=3))
    found: list[Nic] = []
    for name in names:
        backend = draw(backends)
        found.append(
            Nic(
                name=name,
                model=draw(st.sampled_from(NicModel)),
                mac=f"52:54:00:00:00:{len(found):02x}",
                backend=backend,
                queues=draw(st.integers(1, 8)),
                link_up=draw(st.booleans()),
                boot_order=draw(orders),
                tap="gl012345" if isinstance(backend, BridgeNet | TapNet) else None,
            )
        )
    return tuple(found)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    family = draw(st.sampled_from(Family))
    firmware = draw(st.sampled_from(FirmwareType))
    accelerator = draw(st.sampled_from(Accelerator))
    fitted, cards = draw(disks()), draw(networks())
    rng, balloon = draw(st.booleans()), draw(st.booleans())
    watchdog = draw(st.none() | st.sampled_from(WatchdogAction))
    requests = pci_requests(
        disks=fitted, networks=cards, rng=rng, balloon=balloon, watchdog=watchdog is not None, explicit={}
    )
    device_bus = draw(st.sampled_from(DeviceBus)) if family is Family.Q35 else DeviceBus.ROOT_PORT
    first = place(family=family, device_bus=device_bus, hotplug_ports=2, requests=requests, previous=None)
    kept = tuple(each for each in requests if draw(st.integers(0, 3)))
    layout = place(family=family, device_bus=device_bus, hotplug_ports=2, requests=kept, previous=first)
    sockets, cores, threads = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2)))
    return Machine(
        uuid=UUID,
        name="default/demo",
        machine_type="pc-q35-7.2" if family is Family.Q35 else "pc-i440fx-7.2",
        accelerator=accelerator,
        tb_size_mib=128 if accelerator is Accelerator.TCG else None,
        firmware=firmware,
        firmware_image="OVMF_CODE_4M.fd" if firmware is FirmwareType.UEFI else None,
        kernel=draw(st.none() | st.builds(KernelBoot, pool=words, image=words, initrd=maybe, cmdline=st.just("a b=c"))),
        cpu=Cpu(count=sockets * cores * threads, sockets=sockets, cores=cores, threads=threads, model="qemu64-v1"),
        memory_bytes=draw(st.integers(2**20, 2**44)),
        disks=fitted,
        networks=cards,
        rng=rng,
        balloon=balloon,
        watchdog=watchdog,
        pvpanic=draw(st.booleans()),
        serial_log=draw(st.booleans()),
        sandbox=draw(st.booleans()),
        pci=layout,
    )
