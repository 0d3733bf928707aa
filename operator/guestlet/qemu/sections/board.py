"""The mainboard: machine type, accelerator, processors, memory, clock, and what the board does on events."""

from guestlet.pci.controllers import Family
from guestlet.pci.layout import DeviceKind
from guestlet.qemu.machine import Accelerator, FirmwareType, Machine, WatchdogAction
from guestlet.qemu.options import key_values, word
from guestlet.qemu.sections.memory import BOOT_MEMORY, memory_args

_WATCHDOG_ACTION = {
    WatchdogAction.RESET: "reset",
    WatchdogAction.POWEROFF: "poweroff",
    WatchdogAction.PAUSE: "pause",
    WatchdogAction.NONE: "none",
}


def board_args(machine: Machine) -> list[str]:
    """Everything that QEMU makes before the first device."""
    return [
        *memory_args(machine),
        *("-machine", _machine_option(machine)),
        *("-accel", _accelerator_option(machine)),
        *("-cpu", word(machine.cpu.model)),
        *("-smp", _topology_option(machine)),
        *("-rtc", "base=utc"),
        *_suspend_args(machine),
        *("-action", _action_option(machine)),
    ]


def _machine_option(machine: Machine) -> str:
    uefi = machine.firmware is FirmwareType.UEFI
    return key_values(
        type=word(machine.machine_type),
        usb=False,
        vmport=False,
        smm=False,  # only secure boot needs it
        hpet=False,  # kvmclock and the TSC are better; must be equal on both sides of a migration
        sata=_chipset_sata(machine),
        dump_guest_core=False,
        memory_backend=BOOT_MEMORY,
        pflash0="firmware-code" if uefi else None,
        pflash1="firmware-vars" if uefi else None,
    )


def _chipset_sata(machine: Machine) -> bool | None:
    """Whether q35's own AHCI is there: only when the layout says so, so that the guest has nothing unrecorded."""
    if machine.pci.family is not Family.Q35:
        return None
    return any(each.kind is DeviceKind.SATA for each in machine.pci.devices)


def _accelerator_option(machine: Machine) -> str:
    match machine.accelerator:
        case Accelerator.KVM:
            return "kvm"
        case Accelerator.TCG:
            return key_values("tcg", thread="multi", tb_size=machine.tb_size_mib)


def _topology_option(machine: Machine) -> str:
    cpu = machine.cpu
    return key_values(cpus=cpu.count, maxcpus=cpu.max_count, sockets=cpu.sockets, cores=cpu.cores, threads=cpu.threads)


def _suspend_args(machine: Machine) -> list[str]:
    """No S3, no S4: a suspended guest would look paused by somebody and nothing could wake it."""
    chip = "ICH9-LPC" if machine.pci.family is Family.Q35 else "PIIX4_PM"
    return ["-global", f"{chip}.disable_s3=1", "-global", f"{chip}.disable_s4=1"]


def _action_option(machine: Machine) -> str:
    watchdog = None if machine.watchdog is None else _WATCHDOG_ACTION[machine.watchdog]
    return key_values(reboot="reset", shutdown="poweroff", panic="pause", watchdog=watchdog)
