"""What the guest's first instruction belongs to: BIOS, UEFI flash, or a kernel loaded directly; and the boot order."""

from guestlet.api.reasons import Reason
from guestlet.errors import Broken
from guestlet.qemu.machine import FirmwareType, HostPaths, Machine
from guestlet.qemu.options import OptionValue, json_option
from guestlet.qemu.sections.storage import image_path


def firmware_args(machine: Machine, paths: HostPaths) -> list[str]:
    """Flash nodes (``-machine`` names them), kernel and boot order.

    Raises:
        Broken: ``HostFailure`` for UEFI without the path of its code image.
    """
    return [*_flash_args(machine, paths), *_boot_args(machine), *_kernel_args(machine, paths)]


def _flash_args(machine: Machine, paths: HostPaths) -> list[str]:
    match machine.firmware:
        case FirmwareType.BIOS:
            return []
        case FirmwareType.UEFI:
            if paths.firmware_code is None:
                raise Broken(Reason.HOST_FAILURE, "a UEFI guest needs the path of its firmware code image")
            return [
                *_flash("firmware-code", paths.firmware_code, read_only=True),
                *_flash("firmware-vars", f"{paths.state_dir}/nvram.fd", read_only=False),
            ]


def _flash(name: str, path: str, *, read_only: bool) -> list[str]:
    file: dict[str, OptionValue] = {
        "driver": "file",
        "node-name": f"{name}-file",
        "filename": path,
        "read-only": read_only,
    }
    raw: dict[str, OptionValue] = {"driver": "raw", "node-name": name, "file": f"{name}-file", "read-only": read_only}
    return ["-blockdev", json_option(file), "-blockdev", json_option(raw)]


def _boot_args(machine: Machine) -> list[str]:
    """Strict as soon as somebody gave an order, so that the firmware neither tries nor even starts other devices."""
    orders = (*(each.boot_order for each in machine.disks), *(each.boot_order for each in machine.networks))
    ordered = any(each is not None for each in orders)
    return ["-boot", f"menu=off,strict={'on' if ordered else 'off'}"]


def _kernel_args(machine: Machine, paths: HostPaths) -> list[str]:
    kernel = machine.kernel
    if kernel is None:
        return []
    args = ["-kernel", image_path(paths, kernel.pool, kernel.image)]
    if kernel.initrd is not None:
        args += ["-initrd", image_path(paths, kernel.pool, kernel.initrd)]
    return [*args, "-append", kernel.cmdline]
