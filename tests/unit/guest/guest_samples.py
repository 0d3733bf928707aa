"""Guests, records and looks at them, for the unit tests of the guest's room; every part can be changed by keyword."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from guestlet.api.guest_spec import VirtualGuestSpec
from guestlet.api.guest_status import VirtualGuestStatus
from guestlet.guest.desired import Guest, GuestKey
from guestlet.guest.observed import MonitorFacts, NetworkFacts, ObservedGuest, StorageFacts
from guestlet.guest.record import NO_ALIASES, Record, Run
from guestlet.guest.resolve import resolve_machine
from guestlet.guest.source import source_text
from guestlet.host.accelerator import AcceleratorProbe
from guestlet.host.facts import (
    NOTHING_HEARD,
    ExitFacts,
    ImageFacts,
    NodeFacts,
    PoolFacts,
    ProcessFacts,
    ProcessIdentity,
)
from guestlet.qemu.capabilities import Capabilities
from guestlet.qemu.machine import Accelerator, ImageFormat, Machine
from guestlet.qemu.replies import RunState

UUID = "6f1e1b52-7a4d-4a34-9b6e-3a5c1f0d2e11"
QEMU = ProcessIdentity(pid=4711, start_ticks=99)
NOW = 1_700_000_000.0
MIB = 1024 * 1024
GIB = 1024 * MIB

CAPABILITIES = Capabilities(
    version="7.2.22",
    machine_types={"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2"},
    all_machine_types=("pc-i440fx-7.2", "pc-q35-7.1", "pc-q35-7.2"),
    cpu_models=("Nehalem", "Nehalem-v1", "host", "max", "qemu64", "qemu64-v1"),
    cpu_aliases={"Nehalem": "Nehalem-v1", "qemu64": "qemu64-v1"},
    devices=frozenset({"pc-dimm", "virtio-mem-pci"}),
    objects=frozenset(),
    commands=frozenset(),
    netdevs=frozenset({"tap", "user"}),
    block_drivers=frozenset({"file", "qcow2", "raw"}),
    file_aio=frozenset({"threads", "native"}),
    sandbox=True,
)
TCG = AcceleratorProbe(
    accelerator=Accelerator.TCG, kvm_seconds=None, tcg_seconds=0.004, detail="there is no /dev/kvm; TCG 0.004 s"
)
KVM = AcceleratorProbe(
    accelerator=Accelerator.KVM, kvm_seconds=0.001, tcg_seconds=0.004, detail="KVM 0.001 s, TCG 0.004 s"
)
SLOW_KVM = AcceleratorProbe(
    accelerator=Accelerator.TCG, kvm_seconds=2.6, tcg_seconds=0.004, detail="KVM 2.6 s, TCG 0.004 s"
)
NODE = NodeFacts(
    name="node-a",
    cpus=4,
    memory_bytes=8 * GIB,
    memory_reserved_bytes=1 * GIB,
    pools=("default",),
    bridges=("br0", "br1"),
    qemu_binary="/usr/bin/qemu-system-x86_64",
)
POOL = PoolFacts(name="default", identity="pool-1", free_bytes=100 * GIB)
NO_IMAGES: Mapping[tuple[str, str], ImageFacts] = {}


def disk(name: str = "root", **fields: Any) -> dict[str, Any]:
    """A disk of the spec on the image ``<name>.qcow2``; ``source`` fields go by their own names in ``file``."""
    file = {"pool": "default", "image": f"{name}.qcow2", **fields.pop("file", {})}
    return {"name": name, "source": {"file": file}, **fields}


def image(name: str = "root.qcow2", **facts: Any) -> ImageFacts:
    plain: dict[str, Any] = {
        "pool": "default",
        "image": name,
        "format": ImageFormat.QCOW2,
        "virtual_size_bytes": 1 * GIB,
        "backing_image": None,
        "locked": False,
    }
    return ImageFacts(**{**plain, **facts})


def guest(
    spec: Mapping[str, Any] | None = None,
    *,
    status: VirtualGuestStatus | None = None,
    generation: int = 1,
    deleting: bool = False,
    has_finalizer: bool = True,
    epoch: int = 1,
    uid: str = "uid-1",
) -> Guest:
    return Guest(
        key=GuestKey(namespace="default", name="demo"),
        uid=uid,
        generation=generation,
        deleting=deleting,
        has_finalizer=has_finalizer,
        node="node-a",
        epoch=epoch,
        spec=VirtualGuestSpec.model_validate(spec or {}),
        published=status or VirtualGuestStatus(node_name="node-a", placement_epoch=epoch),
    )


def storage(*images: ImageFacts, pools: Mapping[str, PoolFacts | None] | None = None, **facts: Any) -> StorageFacts:
    plain: dict[str, Any] = {
        "pools": {"default": POOL} if pools is None else pools,
        "images": {(each.pool, each.image): each for each in images},
        "users": {},
        "needed": {},
        "firmware": "OVMF_CODE_4M.fd",
        "firmware_present": True,
    }
    return StorageFacts(**{**plain, **facts})


def network(*, bridges: tuple[str, ...] = ("br0",), scripts: tuple[str, ...] = ()) -> NetworkFacts:
    return NetworkFacts(bridges=frozenset(bridges), scripts=frozenset(scripts))


def observed(
    *,
    running: ProcessIdentity | None = None,
    last_exit: ExitFacts | None = None,
    run_state: RunState | None = None,
    mismatches: tuple[str, ...] = (),
    **facts: Any,
) -> ObservedGuest:
    """A look at a guest on ``NODE``; with ``run_state`` its monitor answers."""
    monitor = monitor_facts(run_state, mismatches=mismatches) if run_state else None
    plain: dict[str, Any] = {
        "node": NODE,
        "capabilities": CAPABILITIES,
        "accelerator": TCG,
        "committed_memory_bytes": 0,
        "process": ProcessFacts(running=running, last_exit=last_exit),
        "exit_note": None,
        "monitor": monitor,
        "monitor_error": None if monitor else "no answer",
        "storage": storage(),
        "network": network(),
        "failures": {},
    }
    return ObservedGuest(**{**plain, **facts})


def monitor_facts(run_state: RunState, **facts: Any) -> MonitorFacts:
    """What a QEMU in that state said; nothing unless given by keyword."""
    plain: dict[str, Any] = {"mismatches": (), "numbered": None, "inventory": None, "heard": NOTHING_HEARD}
    return MonitorFacts(run_state=run_state, **{**plain, **facts})


def machine(spec: Mapping[str, Any] | None = None, **facts: Any) -> Machine:
    return resolve_machine(guest=guest(spec), observed=observed(**facts), previous=None, uuid=UUID)


def run(**fields: Any) -> Run:
    plain: dict[str, Any] = {
        "identity": QEMU,
        "started_at": NOW - 100,
        "resumed": True,
        "argv": ("qemu", "-S"),
        "qemu_version": "7.2.22",
        "foreign": False,
        "aliases": NO_ALIASES,
    }
    return Run(**{**plain, **fields})


def record(spec: Mapping[str, Any] | None = None, **fields: Any) -> Record:
    """A record of a guest with that spec that never ran, unless ``run`` and ``machine`` are given."""
    wanted = guest(spec).spec
    plain = Record(
        uuid=UUID,
        object_uid="uid-1",
        namespace="default",
        name="demo",
        epoch=1,
        given_away_epoch=None,
        generation=1,
        source=source_text(wanted),
        machine=None,
        run=None,
        pending=(),
        paused=False,
        stop=None,
        restart_token=None,
        strategy=wanted.run_strategy.value,
        ended=False,
        restarts=0,
        failures=0,
        last_exit=None,
        created_images=(),
    )
    return replace(plain, **fields)


def running_record(spec: Mapping[str, Any] | None = None, **fields: Any) -> Record:
    return record(spec, **{"machine": machine(spec), "run": run(), **fields})


def exit_facts(*, code: int | None = None, signal: int | None = None, at: float = NOW, tail: str = "") -> ExitFacts:
    return ExitFacts(identity=QEMU, code=code, signal=signal, at=at, log_tail=tail)
