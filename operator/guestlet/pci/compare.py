"""The recorded layout against QEMU's own objects: equal before the guest may run, or a sentence for each difference.

It must never look at ``query-pci``, which is blind before the firmware has run; QOM never is.
"""

from collections.abc import Mapping

from guestlet.pci.address import PciAddress
from guestlet.pci.controllers import CHIPSET_SATA
from guestlet.pci.layout import Layout


def compare(layout: Layout, qom: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """How QEMU's devices differ from the recorded ones, in words; empty when they do not.

    ``qom`` holds, by qdev id, what ``/machine/peripheral/<id>`` answers for ``legacy-addr`` (``05.0``) and the name
    of the bus that ``parent_bus`` leads to (``port-2``). The chipset's own AHCI has no id and is not compared, and of
    what nobody knows nothing is expected.
    """
    recorded = recorded_places(layout)
    unknown = {each.id for each in layout.anonymous}
    wrong = []
    for device, address in recorded.items():
        found = qom.get(device)
        if found is None:
            wrong.append(f"{device} is recorded at {address} and QEMU does not have it")
        elif found != (address.on_bus, address.bus):
            wrong.append(f"{device} is recorded at {address} and QEMU has it at {found[1]}:{found[0]}")
    wrong += [
        f"{device} is at {place[1]}:{place[0]} in QEMU and not recorded"
        for device, place in sorted(qom.items())
        if device not in recorded and device not in unknown
    ]
    return tuple(wrong)


def recorded_places(layout: Layout) -> Mapping[str, PciAddress]:
    """The address of each controller and device that has a qdev id in QEMU: what there is to be asked about."""
    return {
        **{each.id: each.address for each in layout.controllers},
        **{each.id: each.address for each in layout.devices if each.address != CHIPSET_SATA},
    }
