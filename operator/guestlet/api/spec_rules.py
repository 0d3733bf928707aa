"""Rules of a guest's spec that look at several fields at once, and those that compare with the object before.

Every message names the field and the remedy. Costs are bounded by the list bounds of the models: the API server refuses
a CRD whose rules could take too long, so a rule that visits pairs must stay one plain comparison.
"""

from guestlet.api.cel import CelRule

_MOST_CPUS_NAME = "(has(self.maxCount) ? 'maxCount' : 'count')"
_MOST_CPUS = "(has(self.maxCount) ? self.maxCount : self.count)"

CPU_RULES = (
    CelRule(
        rule="!has(self.maxCount) || self.maxCount >= self.count",
        message="maxCount must be at least count: raise it, or remove it",
        field_path=".maxCount",
    ),
    CelRule(
        rule=f"{_MOST_CPUS} % ((has(self.sockets) ? self.sockets : 1) * (has(self.cores) ? self.cores : 1)"
        " * (has(self.threads) ? self.threads : 1)) == 0",
        message="maxCount (count where it is absent) must be a multiple of sockets * cores * threads: change it, "
        "or remove one of them",
        expression=f"{_MOST_CPUS_NAME} + ' must be a multiple of sockets * cores * threads: change it, or remove one "
        "of them'",
        field_path=".count",
    ),
    CelRule(
        rule="!(has(self.sockets) && has(self.cores) && has(self.threads))"
        f" || {_MOST_CPUS} == self.sockets * self.cores * self.threads",
        message="maxCount (count where it is absent) must equal sockets * cores * threads: change it, "
        "or remove one of them",
        expression=f"{_MOST_CPUS_NAME} + ' must equal sockets * cores * threads: change it, or remove one of them'",
        field_path=".count",
    ),
)

MEMORY_RULES = (
    CelRule(
        rule="!has(self.maxSize) || !isQuantity(self.maxSize) || !isQuantity(self.size)"
        " || quantity(self.maxSize).compareTo(quantity(self.size)) >= 0",
        message="maxSize must be at least size: raise it, or remove it",
        expression="'maxSize ' + self.maxSize + ' is less than size ' + self.size + ': raise it, or remove it'",
        field_path=".maxSize",
    ),
)


def _unique(*, items: str, field: str, remedy: str, fold: str = "") -> CelRule:
    """No two entries of the list ``items`` have the same ``field``; ``fold`` is a CEL call made on both before.

    The message cannot show the value: what comes out of a CEL filter is reckoned as endlessly long (measured).
    """
    twin = f"has(b.{field}) && b.{field}{fold} == a.{field}{fold}"
    return CelRule(
        rule=f"!has(self.{items}) || self.{items}.all(a, !has(a.{field}) || self.{items}.exists_one(b, {twin}))",
        message=f"{field} must be unique among the guest's {items}: {remedy}",
        field_path=f".{items}",
    )


def _disjoint(*, field: str, remedy: str) -> CelRule:
    """No disk and network have the same ``field``."""
    return CelRule(
        rule=f"!has(self.disks) || !has(self.networks) || self.disks.all(a, !has(a.{field})"
        f" || !self.networks.exists(b, has(b.{field}) && b.{field} == a.{field}))",
        message=f"{field} must be unique over disks and networks: {remedy}",
        field_path=".networks",
    )


_PCI_REMEDY = "give each device its own pciAddress, or remove it to have one placed"
_BOOT_REMEDY = "give each device its own number, lowest boots first"

SPEC_RULES = (
    CelRule(
        rule="!has(oldSelf.nodeName) || (has(self.nodeName) && self.nodeName == oldSelf.nodeName)",
        message="nodeName is immutable once set: delete the guest and create it again to place it elsewhere",
        expression="'nodeName is ' + oldSelf.nodeName + ' and immutable once set: restore it, or delete the guest and "
        "create it again to place it elsewhere'",
        field_path=".nodeName",
    ),
    CelRule(
        rule="self.machine.type == 'q35' || self.pci.deviceBus == 'RootPort'",
        message="deviceBus PCIBridge is a choice on q35 only: set machine.type to q35, or remove pci.deviceBus",
        field_path=".pci.deviceBus",
    ),
    _unique(
        items="networks",
        field="macAddress",
        remedy="change one, or remove it to have one generated",
        fold=".lowerAscii()",
    ),
    _unique(items="disks", field="serial", remedy="change one, or remove it to have one generated"),
    _unique(items="disks", field="pciAddress", remedy=_PCI_REMEDY),
    _unique(items="networks", field="pciAddress", remedy=_PCI_REMEDY),
    _disjoint(field="pciAddress", remedy=_PCI_REMEDY),
    CelRule(
        rule="!has(self.networks) || self.networks.all(a, !has(a.user) || !has(a.user.hostForwards)"
        " || a.user.hostForwards.all(f, !self.networks.exists(b, b.name != a.name && has(b.user)"
        " && has(b.user.hostForwards) && b.user.hostForwards.exists(g, g.hostPort == f.hostPort"
        " && g.protocol == f.protocol && g.hostAddress == f.hostAddress))))",
        message="hostForwards of two networks listen on the same hostAddress and hostPort: change one hostPort",
        field_path=".networks",
    ),
    _unique(items="disks", field="bootOrder", remedy=_BOOT_REMEDY),
    _unique(items="networks", field="bootOrder", remedy=_BOOT_REMEDY),
    _disjoint(field="bootOrder", remedy=_BOOT_REMEDY),
)

GUEST_RULES = (
    CelRule(
        rule="self.metadata.name.size() <= 63",
        message="metadata.name is longer than 63 characters: give the guest a shorter name",
        field_path=".metadata.name",
    ),
    CelRule(
        rule="!has(oldSelf.status) || !has(oldSelf.status.machineType)"
        " || self.spec.machine.type == oldSelf.spec.machine.type",
        message="machine.type is immutable after the first start: restore it, or delete the guest and create it again",
        expression="'machine.type is ' + oldSelf.spec.machine.type + ' and immutable after the first start: restore "
        "it, or delete the guest and create it again'",
        field_path=".spec.machine.type",
    ),
    CelRule(
        rule="!has(oldSelf.status) || !has(oldSelf.status.machineType)"
        " || self.spec.pci.deviceBus == oldSelf.spec.pci.deviceBus",
        message="pci.deviceBus is immutable after the first start: restore it, or delete the guest and create it again",
        expression="'pci.deviceBus is ' + oldSelf.spec.pci.deviceBus + ' and immutable after the first start: restore "
        "it, or delete the guest and create it again'",
        field_path=".spec.pci.deviceBus",
    ),
    CelRule(
        rule="!has(self.spec.nodeName) || has(oldSelf.spec.nodeName) || !has(oldSelf.status)"
        " || !has(oldSelf.status.nodeName) || self.spec.nodeName == oldSelf.status.nodeName",
        message="the guest is placed already: remove nodeName, or name the node of status.nodeName",
        expression="'the guest is on ' + oldSelf.status.nodeName + ' already: remove nodeName, or set it to that'",
        field_path=".spec.nodeName",
    ),
)
