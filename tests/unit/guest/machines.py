"""Random machines within the bounds of the API, for the round trips of record and description."""

from dataclasses import replace

from hypothesis import strategies as st

from guestlet.pci.address import PciAddress
from guestlet.pci.layout import Anonymous, DeviceBus, DeviceKind, Family, place
from guestlet.qemu.machine import (
    Accelerator,
    AioMode,
    Bandwidth,
    BridgeNet,
    CacheMode,
    Cpu,
    Dimm,
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
    Memory,
    Nic,
    NicModel,
    Protocol,
    TapNet,
    Throttle,
    UserNet,
    VirtioMem,
    WatchdogAction,
)
from guestlet.qemu.pci_requests import pci_requests
from unit.guest.guest_samples import UUID

SMALL = (DeviceKind.RNG, DeviceKind.BALLOON, DeviceKind.WATCHDOG, DeviceKind.MEMORY)

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


rates = st.none() | st.integers(1, 2**40)
throttles = st.builds(Throttle, iops=rates, iops_burst=rates, bandwidth_bytes=rates, bandwidth_burst_bytes=rates)
bandwidths = st.builds(Bandwidth, inbound_bytes=rates, outbound_bytes=rates)
sizes = st.integers(0, 2**44)
memories = st.builds(
    Memory,
    boot_bytes=sizes,
    max_bytes=sizes,
    virtio_mem=st.none() | st.builds(VirtioMem, max_bytes=sizes, block_bytes=sizes, requested_bytes=sizes),
    dimms=st.lists(st.builds(Dimm, slot=st.integers(0, 255), size_bytes=sizes), max_size=3).map(tuple),
)
hexadecimal = st.from_regex(r"[0-9a-f]{4}", fullmatch=True)
strangers = st.builds(
    Anonymous,
    address=st.builds(PciAddress, bus=words, slot=st.integers(0, 31), function=st.integers(0, 7)),
    id=st.just("") | words,
    vendor=hexadecimal,
    device=hexadecimal,
    device_class=hexadecimal,
)


@st.composite
def disks(draw: st.DrawFn) -> tuple[Disk, ...]:
    names = draw(st.lists(words, unique=True, max_size=4))
    found = []
    for number, name in enumerate(names):
        bus, cdrom = draw(st.sampled_from(DiskBus)), draw(st.booleans())
        found.append(
            Disk(
                name=name,
                bus=bus,
                source=draw(sources) if draw(st.booleans()) or not cdrom else None,
                size_bytes=draw(st.integers(1, 2**50)),
                read_only=draw(st.booleans()),
                cdrom=cdrom,
                serial=draw(words),
                cache=draw(st.sampled_from(CacheMode)),
                aio=draw(st.sampled_from(AioMode)),
                discard=draw(st.sampled_from(DiscardMode)),
                io_thread=draw(st.booleans()),
                throttle=draw(st.none() | throttles),
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
                bandwidth=draw(st.none() | bandwidths),
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
    small = draw(st.frozensets(st.sampled_from(SMALL)))
    requests = pci_requests(disks=fitted, networks=cards, small=small, explicit={})
    device_bus = draw(st.sampled_from(DeviceBus)) if family is Family.Q35 else DeviceBus.ROOT_PORT
    first = place(family=family, device_bus=device_bus, hotplug_ports=2, requests=requests, previous=None)
    kept = tuple(each for each in requests if draw(st.integers(0, 3)))
    layout = place(family=family, device_bus=device_bus, hotplug_ports=2, requests=kept, previous=first)
    layout = replace(layout, anonymous=tuple(draw(st.lists(strangers, max_size=2))))
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
        cpu=Cpu(
            count=draw(st.integers(1, sockets * cores * threads)),
            max_count=sockets * cores * threads,
            sockets=sockets,
            cores=cores,
            threads=threads,
            model="qemu64-v1",
        ),
        memory=draw(memories),
        disks=fitted,
        networks=cards,
        rng=DeviceKind.RNG in small,
        balloon=DeviceKind.BALLOON in small,
        watchdog=draw(st.sampled_from(WatchdogAction)) if DeviceKind.WATCHDOG in small else None,
        pvpanic=draw(st.booleans()),
        serial_log=draw(st.booleans()),
        sandbox=draw(st.booleans()),
        pci=layout,
    )
