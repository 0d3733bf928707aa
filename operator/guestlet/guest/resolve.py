"""From spec to machine: every value that the user left open is chosen here, once, and then kept.

Whatever an earlier machine of the same guest fixed (versioned machine type, CPU model, MACs, units, addresses) stays.
Pure; a spec that this node cannot serve is a ``Refused`` that names field, value and remedy.
"""

from guestlet.api.guest_spec import AcceleratorChoice, CpuSpec
from guestlet.api.reasons import Reason
from guestlet.errors import Refused
from guestlet.guest.desired import Guest
from guestlet.guest.observed import ObservedGuest, StorageFacts
from guestlet.guest.resolve_disks import resolve_disks
from guestlet.guest.resolve_memory import resolve_memory
from guestlet.guest.resolve_networks import refuse_unserved, resolve_networks
from guestlet.guest.resolve_pci import resolve_pci
from guestlet.pci.layout import Layout
from guestlet.pci.plug import unplug
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.machine import Accelerator, Cpu, FirmwareType, KernelBoot, Machine, Nic
from guestlet.qemu.names import nic_device

# TCG's translation cache is 1 GiB unless told otherwise (design: it must be counted in the guest's overhead).
TB_SIZE_MIB = 128
_DEFAULT_MODELS = ("Nehalem", "Westmere", "qemu64")


def resolve_machine(*, guest: Guest, observed: ObservedGuest, previous: Machine | None, uuid: str) -> Machine:
    """The machine that the next start gives to QEMU.

    Raises:
        Refused: the node cannot serve this spec; the reason and message are for the guest's owner.
    """
    storage, network = observed.storage, observed.network
    if storage is None or network is None:
        raise ValueError("a machine is resolved only after its storage and network were looked at")
    spec = guest.spec
    accelerator = _accelerator(spec.accelerator, observed)
    disks = resolve_disks(spec.disks, storage=storage, previous=previous)
    networks = resolve_networks(spec.networks, uuid=uuid, previous=previous)
    for each in spec.networks:
        refuse_unserved(each, observed.node, network)
    memory = resolve_memory(spec.memory, observed)
    return Machine(
        uuid=uuid,
        name=str(guest.key),
        machine_type=_machine_type(guest, observed.capabilities, previous),
        accelerator=accelerator,
        tb_size_mib=TB_SIZE_MIB if accelerator is Accelerator.TCG else None,
        firmware=spec.firmware.type,
        firmware_image=_firmware(guest, storage, previous),
        kernel=_kernel(guest, storage),
        cpu=_cpu(spec.cpu, observed, previous),
        memory=memory,
        disks=disks,
        networks=networks,
        rng=spec.devices.rng,
        balloon=spec.devices.balloon,
        watchdog=spec.devices.watchdog.action if spec.devices.watchdog else None,
        pvpanic=spec.devices.pvpanic,
        serial_log=spec.console.serial_log,
        sandbox=observed.capabilities.sandbox,
        pci=resolve_pci(
            spec,
            disks=disks,
            networks=networks,
            virtio_mem=memory.virtio_mem is not None,
            previous=_layout_before(previous, networks) if previous else None,
        ),
    )


def _layout_before(previous: Machine, networks: tuple[Nic, ...]) -> Layout:
    """The layout without the cards that are of another model now: a conventional one may not stay on a root port."""
    layout = previous.pci
    models = {each.name: each.model for each in previous.networks}
    for nic in networks:
        if models.get(nic.name, nic.model) is not nic.model:
            layout = unplug(layout, nic_device(nic.name))
    return layout


def _accelerator(choice: AcceleratorChoice, observed: ObservedGuest) -> Accelerator:
    probe = observed.accelerator
    if choice is AcceleratorChoice.AUTO:
        return probe.accelerator
    if choice is AcceleratorChoice.KVM and probe.kvm_seconds is None:
        raise Refused(
            Reason.ACCELERATOR_MISSING,
            f"spec.accelerator: KVM does not work on node {observed.node.name} ({probe.detail}); "
            "use Auto or TCG, or another node",
        )
    return Accelerator(choice.value)


def _machine_type(guest: Guest, capabilities: Capabilities, previous: Machine | None) -> str:
    family = guest.spec.machine.type
    marker = "pc-q35-" if family == "q35" else "pc-i440fx-"
    if previous is not None and previous.machine_type.startswith(marker):
        if previous.machine_type in capabilities.all_machine_types:
            return previous.machine_type
        raise Refused(
            Reason.MACHINE_TYPE_MISSING,
            f"this guest was built as {previous.machine_type}, which the node's QEMU {capabilities.version} does not "
            "have; install a QEMU that has it, or move the guest to a node with one",
        )
    found = capabilities.machine_types.get(family.value)
    if found is None:
        raise Refused(
            Reason.MACHINE_TYPE_MISSING, f"spec.machine.type: the node's QEMU knows no machine {family.value!r}"
        )
    return found


def _firmware(guest: Guest, storage: StorageFacts, previous: Machine | None) -> str | None:
    if guest.spec.firmware.type is FirmwareType.BIOS:
        return None
    kept = previous.firmware_image if previous and previous.firmware is FirmwareType.UEFI else None
    if kept is not None and storage.firmware_present:
        return kept
    if kept is not None or storage.firmware is None:
        wanted = f"the image {kept} it was first started with" if kept else "an OVMF image"
        raise Refused(
            Reason.FIRMWARE_MISSING,
            f"spec.firmware.type: UEFI needs {wanted} in the node's firmwareDirs; install Debian's package ovmf",
        )
    return storage.firmware


def _kernel(guest: Guest, storage: StorageFacts) -> KernelBoot | None:
    spec = guest.spec.boot.kernel if guest.spec.boot else None
    if spec is None:
        return None
    for field, image in (("image", spec.image), ("initrd", spec.initrd)):
        if image is None:
            continue
        if storage.pools.get(spec.pool) is None:
            raise Refused(Reason.NO_SUCH_POOL, f"spec.boot.kernel.pool: the node has no pool {spec.pool!r}")
        found = storage.images.get((spec.pool, image))
        if isinstance(found, Refused):
            raise Refused(found.reason, f"spec.boot.kernel.{field}: {found.message}")
        if found is None:
            raise Refused(
                Reason.IMAGE_MISSING,
                f"spec.boot.kernel.{field}: pool {spec.pool} has no file {image!r}; put it there or correct the name",
            )
    return KernelBoot(pool=spec.pool, image=spec.image, initrd=spec.initrd, cmdline=spec.cmdline)


def _cpu(spec: CpuSpec, observed: ObservedGuest, previous: Machine | None) -> Cpu:
    if spec.count > observed.node.cpus:
        raise Refused(
            Reason.INSUFFICIENT_CPUS,
            f"spec.cpu.count: {spec.count} virtual CPUs on node {observed.node.name} with {observed.node.cpus} CPUs; "
            f"use at most {observed.node.cpus}, or a larger node",
        )
    sockets, cores, threads = topology(spec)
    return Cpu(
        count=spec.count,
        max_count=spec.max_count or spec.count,
        sockets=sockets,
        cores=cores,
        threads=threads,
        model=_model(spec.model, observed, previous),
    )


def topology(spec: CpuSpec) -> tuple[int, int, int]:
    """Sockets, cores, threads with product ``maxCount``: the first absent one of them takes the rest.

    Raises:
        Refused: the product cannot be ``maxCount`` (``count`` where that is absent), or that is less than ``count``.
    """
    most = spec.max_count or spec.count
    field = "count" if spec.max_count is None else "maxCount"
    if most < spec.count:
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.cpu.maxCount: {most} is less than the count {spec.count}; raise it, or remove it",
        )
    given = {"sockets": spec.sockets, "cores": spec.cores, "threads": spec.threads}
    product = 1
    for value in given.values():
        product *= value or 1
    rest, remainder = divmod(most, product)
    absent = [name for name, value in given.items() if value is None]
    if remainder or (rest != 1 and not absent):
        raise Refused(
            Reason.INVALID_SPEC,
            f"spec.cpu: sockets x cores x threads = {product} cannot make {field} {most}; correct one of them",
        )
    full = {name: value or 1 for name, value in given.items()}
    if absent:
        full[absent[0]] = rest
    return full["sockets"], full["cores"], full["threads"]


def _model(wanted: str | None, observed: ObservedGuest, previous: Machine | None) -> str:
    capabilities = observed.capabilities
    if wanted is None:
        if previous is not None:
            return previous.cpu.model
        wanted = next((name for name in _DEFAULT_MODELS if name in capabilities.cpu_models), "qemu64")
    if wanted in ("Host", "Max"):
        if wanted == "Host" and observed.accelerator.accelerator is not Accelerator.KVM:
            raise Refused(
                Reason.UNKNOWN_CPU_MODEL,
                "spec.cpu.model: Host needs KVM, and this guest runs under TCG; use Max or a named model",
            )
        return wanted.lower()
    if wanted not in capabilities.cpu_models:
        raise Refused(
            Reason.UNKNOWN_CPU_MODEL,
            f"spec.cpu.model: the node's QEMU knows no CPU model {wanted!r}; known are Host, Max and "
            f"{', '.join(sorted(capabilities.cpu_models)[:12])}, …",
        )
    return capabilities.versioned_model(wanted)
