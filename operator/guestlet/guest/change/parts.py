"""What a disk, a network, a CPU and a memory module consist of inside a running QEMU: how each part is made and unmade.

A part that QEMU has is not made again, and one that it has not is not unmade: so both ways can be broken off anywhere
and gone on with. It must never take a wish for a fact: what is there stands in the inventory.
"""

from dataclasses import dataclass

from guestlet.guest.actions import Action, AddNetdev, AddNode, CloseTap, LendDisk, OpenTap, ShapeTap, Tell
from guestlet.guest.record import Aliases
from guestlet.guest.resolve_networks import tap_name
from guestlet.guest.taps import down_script_of, tap_of, up_script_of
from guestlet.qemu import commands
from guestlet.qemu.inventory import CpuSlot, Inventory
from guestlet.qemu.machine import Dimm, Disk, DiskBus, Machine, Nic
from guestlet.qemu.names import cpu_device, dimm_device, dimm_memory, disk_device, net_backend, nic_device
from guestlet.qemu.options import OptionValue
from guestlet.qemu.sections.memory import dimm_object, dimm_option
from guestlet.qemu.sections.network import nic_option
from guestlet.qemu.sections.storage import disk_option, iothread_option, node_names, scsi_controller_option


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part: whether QEMU has it, what makes it and what unmakes it. Devices are not unmade: the guest lets go."""

    present: bool
    make: tuple[Action, ...]
    unmake: tuple[Action, ...]


def making(steps: tuple[Step, ...]) -> tuple[Action, ...]:
    """What is still to be made, lower parts first."""
    return tuple(action for each in steps if not each.present for action in each.make)


def unmaking(steps: tuple[Step, ...]) -> tuple[Action, ...]:
    """What is left to be taken away, upper parts first."""
    return tuple(action for each in reversed(steps) if each.present for action in each.unmake)


def disk_steps(machine: Machine, disk: Disk, inventory: Inventory, aliases: Aliases) -> tuple[Step, ...]:
    """A whole disk: iothread, block nodes, the controller where it needs one, the device."""
    device = disk_device(disk.name)
    shared = disk.bus is DiskBus.SCSI
    thread = iothread_option(disk)
    threads = [] if thread is None else [_object(thread, inventory)]
    if shared:
        # The controller and its iothread stay when the last disk goes: without disks they cost the guest nothing.
        threads = [_kept(each) for each in threads]
    controller = (_device(scsi_controller_option(machine), inventory),) if shared else ()
    itself = _device({**disk_option(machine, disk), "id": device}, inventory)
    return (*threads, *node_steps(machine, disk, inventory, aliases), *controller, itself)


def throttle_told(disk: Disk, device: str | None = None) -> Tell:
    """Sets or takes away the disk's limits, which no command line of ours can say; ``device``: what QEMU calls it."""
    name = disk_device(disk.name)
    path = device or commands.throttled_device(name, disk.bus)
    return Tell(command=commands.block_set_io_throttle(path, disk.throttle, name), what=f"limits {name}")


def node_steps(machine: Machine, disk: Disk, inventory: Inventory, aliases: Aliases) -> tuple[Step, ...]:
    """The block nodes of a disk's medium, lower ones first."""
    steps = []
    for number, node in enumerate(node_names(disk)):
        name = aliases.nodes.get(node, node)
        # Once for all images of the chain, before the lowest of them is opened.
        lent = (LendDisk(disk=disk),) if number == 0 else ()
        steps.append(
            Step(
                present=name in inventory.nodes,
                make=(*lent, AddNode(machine=machine, disk=disk, node=node)),
                unmake=(Tell(command=commands.blockdev_del(name), what=f"closes {name}"),),
            )
        )
    return tuple(steps)


def network_steps(machine: Machine, nic: Nic, inventory: Inventory, aliases: Aliases) -> tuple[Step, ...]:
    """The back end of a network, with its tap and script, and the device."""
    backend = net_backend(nic.name)
    name = aliases.netdevs.get(backend, backend)
    return (
        Step(
            present=name in inventory.netdevs,
            make=(*_raise_tap(machine, nic), AddNetdev(nic=nic)),
            unmake=(Tell(command=commands.netdev_del(name), what=f"removes {name}"),),
        ),
        _device({**nic_option(machine, nic), "id": nic_device(nic.name)}, inventory),
    )


def _raise_tap(machine: Machine, nic: Nic) -> tuple[Action, ...]:
    tap = tap_of(nic)
    if tap is None:
        return ()
    shape = (ShapeTap(tap=tap.name, bandwidth=nic.bandwidth),) if nic.bandwidth else ()
    return (OpenTap(request=tap), *shape, *up_script_of(machine, nic))


def lower_tap(machine: Machine, nic: Nic) -> tuple[Action, ...]:
    """What remains of a network on the node when QEMU has let go of it; a tap that we did not name is not ours."""
    tap = tap_of(nic)
    return (
        ()
        if tap is None or nic.tap != tap_name(machine.uuid, nic.name)
        else (*down_script_of(machine, nic), CloseTap(name=tap.name))
    )


def cpu_steps(index: int, slot: CpuSlot) -> tuple[Step, ...]:
    """One virtual CPU."""
    device = cpu_device(index)
    option: dict[str, OptionValue] = {"driver": slot.driver, "id": device, **slot.properties}
    return (Step(present=slot.path is not None, make=(_plug(option),), unmake=()),)


def dimm_steps(dimm: Dimm, inventory: Inventory) -> tuple[Step, ...]:
    """One memory module and the object behind it."""
    memory = {**dimm_object(dimm), "id": dimm_memory(dimm.slot)}
    return _object(memory, inventory), _device({**dimm_option(dimm), "id": dimm_device(dimm.slot)}, inventory)


def _object(option: dict[str, OptionValue], inventory: Inventory) -> Step:
    name = str(option["id"])
    return Step(
        present=name in inventory.objects,
        make=(Tell(command=commands.object_add(option), what=f"adds {name}"),),
        unmake=(Tell(command=commands.object_del(name), what=f"removes {name}"),),
    )


def _kept(step: Step) -> Step:
    return Step(present=step.present, make=step.make, unmake=())


def _device(option: dict[str, OptionValue], inventory: Inventory) -> Step:
    return Step(present=option["id"] in inventory.devices, make=(_plug(option),), unmake=())


def _plug(option: dict[str, OptionValue]) -> Tell:
    return Tell(command=commands.device_add(option), what=f"plugs {option['id']}")
