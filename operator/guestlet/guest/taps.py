"""Taps and tap scripts of a machine, as values. Pure.

A script is a bare name in the node's ``scriptsDir`` and sees exactly GUESTLET_TAP, GUESTLET_MAC, GUESTLET_GUEST
(``namespace/name``), GUESTLET_EVENT (``up`` or ``down``) and a plain PATH.
"""

from guestlet.guest.actions import Action, CloseTap, OpenTap, RunTapScript, ScriptEvent, ShapeTap
from guestlet.guest.record import Record
from guestlet.host.facts import ScriptRun, TapRequest
from guestlet.qemu.machine import BridgeNet, Machine, Nic, TapNet


def taps_of(machine: Machine) -> tuple[TapRequest, ...]:
    """The taps that must be open when QEMU starts."""
    found = (tap_of(nic) for nic in machine.networks)
    return tuple(each for each in found if each is not None)


def tap_of(nic: Nic) -> TapRequest | None:
    """The tap of one network, if it has one."""
    if nic.tap is None:
        return None
    bridge = nic.backend.bridge if isinstance(nic.backend, BridgeNet) else None
    return TapRequest(name=nic.tap, queues=nic.queues, bridge=bridge)


def raise_taps(machine: Machine) -> tuple[Action, ...]:
    """Opens every tap, with its limits, before QEMU starts, then runs the scripts; a failing one refuses the start."""
    taps: list[Action] = []
    for nic in machine.networks:
        tap = tap_of(nic)
        if tap is not None:
            taps.append(OpenTap(request=tap))
            if nic.bandwidth is not None:
                taps.append(ShapeTap(tap=tap.name, bandwidth=nic.bandwidth))
    return (*taps, *(run for nic in machine.networks for run in up_script_of(machine, nic)))


def up_script_of(machine: Machine, nic: Nic) -> tuple[RunTapScript, ...]:
    """The script to run when the network is attached, if it names one; it refuses the attachment by failing."""
    return _script(machine, nic, ScriptEvent.UP)


def down_script_of(machine: Machine, nic: Nic) -> tuple[RunTapScript, ...]:
    """The script to run when the network is detached or its QEMU gone, if it names one."""
    return _script(machine, nic, ScriptEvent.DOWN)


def take_down(record: Record) -> tuple[Action, ...]:
    """What a recorded run leaves on the node when its QEMU is gone or never came: scripts to run, taps to close."""
    machine = record.machine
    if machine is None or (record.run is not None and record.run.foreign):
        return ()  # taps that somebody else made are somebody else's
    scripts = tuple(run for nic in machine.networks for run in down_script_of(machine, nic))
    return (*scripts, *(CloseTap(name=tap.name) for tap in taps_of(machine)))


def _script(machine: Machine, nic: Nic, event: ScriptEvent) -> tuple[RunTapScript, ...]:
    if not isinstance(nic.backend, TapNet):
        return ()
    script = nic.backend.up_script if event is ScriptEvent.UP else nic.backend.down_script
    if script is None:
        return ()
    return (RunTapScript(event=event, nic=nic.name, run=_run(machine, nic, script, event)),)


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
