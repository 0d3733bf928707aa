"""The small devices: entropy, balloon, watchdog and panic notifier."""

from guestlet.qemu.machine import Machine
from guestlet.qemu.options import OptionValue, json_option
from guestlet.qemu.sections.buses import placement

_RNG_SOURCE = "rng-source"


def device_args(machine: Machine) -> list[str]:
    """Each device that the machine has; what they do on events is the board's ``-action``."""
    args = []
    options: list[dict[str, OptionValue]] = []
    if machine.rng:
        source: dict[str, OptionValue] = {"qom-type": "rng-random", "id": _RNG_SOURCE, "filename": "/dev/urandom"}
        args += ["-object", json_option(source)]
        options.append({"driver": "virtio-rng-pci", "id": "rng", "rng": _RNG_SOURCE, **placement(machine.pci, "rng")})
    if machine.balloon:
        options.append({"driver": "virtio-balloon-pci", "id": "balloon", **placement(machine.pci, "balloon")})
    if machine.watchdog is not None:
        options.append({"driver": "i6300esb", "id": "watchdog", **placement(machine.pci, "watchdog")})
    if machine.pvpanic:
        options.append({"driver": "pvpanic", "id": "pvpanic"})
    return [*args, *(arg for each in options for arg in ("-device", json_option(each)))]
