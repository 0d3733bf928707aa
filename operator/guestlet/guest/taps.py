"""Taps and tap scripts of a machine, as values. Pure.

A script is a bare name in the node's ``scriptsDir`` and sees exactly GUESTLET_TAP, GUESTLET_MAC, GUESTLET_GUEST
(``namespace/name``), GUESTLET_EVENT (``up`` or ``down``) and a plain PATH.
"""

from guestlet.guest.actions import Action, CloseTap, RunTapScript, ScriptEvent
from guestlet.guest.record import Record
from guestlet.host.facts import ScriptRun, TapRequest
from guestlet.qemu.machine import BridgeNet, Machine, Nic, TapNet


def taps_of(machine: Machine) -> tuple[TapRequest, ...]:
    """The taps that must be open when QEMU starts."""
    return tuple(
        TapRequest(
            name=nic.tap,
            queues=nic.queues,
            bridge=nic.backend.bridge if isinstance(nic.backend, BridgeNet) else None,
        )
        for nic in machine.networks
        if nic.tap is not None
    )


def up_scripts(machine: Machine) -> tuple[RunTapScript, ...]:
    """Scripts to run before the guest starts; a failing one refuses the start."""
    return _scripts(machine, ScriptEvent.UP)


def down_scripts(machine: Machine) -> tuple[RunTapScript, ...]:
    """Scripts to run once QEMU is gone, however it went."""
    return _scripts(machine, ScriptEvent.DOWN)


def take_down(record: Record) -> tuple[Action, ...]:
    """What a recorded run leaves on the node when its QEMU is gone or never came: scripts to run, taps to close."""
    machine = record.machine
    if machine is None:
        return ()
    return (*down_scripts(machine), *(CloseTap(name=tap.name) for tap in taps_of(machine)))


def _scripts(machine: Machine, event: ScriptEvent) -> tuple[RunTapScript, ...]:
    runs = []
    for nic in machine.networks:
        if not isinstance(nic.backend, TapNet):
            continue
        script = nic.backend.up_script if event is ScriptEvent.UP else nic.backend.down_script
        if script is not None:
            runs.append(RunTapScript(event=event, nic=nic.name, run=_run(machine, nic, script, event)))
    return tuple(runs)


def _run(machine: Machine, nic: Nic, script: str, event: ScriptEvent) -> ScriptRun:
    return ScriptRun(
        script=script,
        environment=(
            ("GUESTLET_EVENT", event.value),
            ("GUESTLET_GUEST", machine.name),
            ("GUESTLET_MAC", nic.mac),
            ("GUESTLET_TAP", nic.tap or ""),
        ),
    )
