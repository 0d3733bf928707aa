"""Performs one action on the node or at the API server. No decision is taken here, and nothing is retried.

What an action changed of the record or of the object comes back as an ``Effect``, so that the turn goes on with it.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import assert_never

from guestlet.api.guest import VirtualGuest
from guestlet.api.reasons import Reason
from guestlet.errors import Broken, Refused
from guestlet.guest import actions as do
from guestlet.guest.files import NEXT_SCRIPT, SOURCE_FILE
from guestlet.guest.ports import GuestApi, GuestHost
from guestlet.guest.record import RECORD_FILE, Record, dump_record
from guestlet.guest.script import launch_script
from guestlet.guest.taps import tap_of
from guestlet.host.facts import ProcessIdentity, ScriptOutcome
from guestlet.qemu import commands
from guestlet.qemu.commandline import build_argv
from guestlet.qemu.machine import Nic
from guestlet.qemu.names import nic_device
from guestlet.qemu.sections.network import backend_option
from guestlet.qemu.sections.storage import block_nodes

LAUNCH_TIMEOUT_S = 20.0
OnNode = do.CreateImage | do.GrowImage | do.DeleteImage | do.TrimLogs | do.LendDisk
OnTap = do.OpenTap | do.CloseTap | do.MoveTap | do.ShapeTap
OnMachine = do.AddNode | do.AddNetdev | do.Tell | do.AskUnplug
OnQemu = do.SetLink | do.Resume | do.Pause | do.PowerDown | do.Reset | do.Kill
OnHost = OnNode | OnTap | OnMachine | OnQemu
_OUTPUT_CHARS = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What changed: the record as saved (``None``: unchanged), the object as the server answered, and if it is gone."""

    record: Record | None
    wire: VirtualGuest | None
    forgotten: bool


NOTHING = Effect(record=None, wire=None, forgotten=False)


async def perform(action: do.Action, *, wire: VirtualGuest, key: str, host: GuestHost, api: GuestApi) -> Effect:
    """Performs the action for the guest with host key ``key``.

    Raises:
        GuestletError: as the host and the API server say.
    """
    match action:
        case do.AddFinalizer() | do.RemoveFinalizer() | do.KeepImage():
            return await _perform_at_server(action, wire=wire, api=api)
        case do.SaveRecord(record=record):
            await _save(host, key, record)
            return Effect(record=record, wire=None, forgotten=False)
        case do.WriteDescription():
            return await _describe(action, wire=wire, key=key, host=host)
        case do.Launch():
            return await _launch(action, key=key, host=host)
        case do.RunTapScript():
            await _run_script(action, wire=wire, host=host, api=api)
        case do.Forget():
            await host.forget(key)
            return Effect(record=None, wire=None, forgotten=True)
        case _:
            await _perform_on_host(action, key=key, host=host)
    return NOTHING


async def _perform_on_host(action: OnHost, *, key: str, host: GuestHost) -> None:
    match action:
        case do.CreateImage() | do.GrowImage() | do.DeleteImage() | do.TrimLogs() | do.LendDisk():
            await _perform_on_node(action, key=key, host=host)
        case do.OpenTap() | do.CloseTap() | do.MoveTap() | do.ShapeTap():
            await _perform_on_tap(action, key=key, host=host)
        case do.AddNode() | do.AddNetdev() | do.Tell() | do.AskUnplug():
            await _change_qemu(action, key=key, host=host)
        case do.SetLink() | do.Resume() | do.Pause() | do.PowerDown() | do.Reset() | do.Kill():
            await _perform_on_qemu(action, key=key, host=host)
        case _:
            assert_never(action)


async def _perform_at_server(
    action: do.AddFinalizer | do.RemoveFinalizer | do.KeepImage, *, wire: VirtualGuest, api: GuestApi
) -> Effect:
    match action:
        case do.AddFinalizer():
            return Effect(record=None, wire=await api.add_finalizer(wire), forgotten=False)
        case do.RemoveFinalizer():
            await api.remove_finalizer(wire)
        case do.KeepImage(pool=pool, image=image, why=why):
            message = f"image {image} of pool {pool} stays although its disk says onDelete: Delete: {why}"
            await api.event(wire, reason=Reason.IMAGE_IN_USE.value, message=message, warning=True)
        case _:
            assert_never(action)
    return NOTHING


async def _perform_on_node(action: OnNode, *, key: str, host: GuestHost) -> None:
    match action:
        case do.CreateImage(source=source, size_bytes=size_bytes):
            await host.create_image(source, size_bytes or None)
        case do.GrowImage(source=source, size_bytes=size_bytes):
            await host.grow_image(source, size_bytes)
        case do.DeleteImage(pool=pool, image=image):
            await host.delete_image(pool, image)
        case do.LendDisk(disk=disk):
            await host.lend_disk(key, disk)
        case do.TrimLogs():
            await host.trim_logs(key)
        case _:
            assert_never(action)


async def _perform_on_tap(action: OnTap, *, key: str, host: GuestHost) -> None:
    match action:
        case do.OpenTap(request=request):
            await host.open_tap(key, request)
        case do.CloseTap(name=name):
            await host.close_tap(name)
        case do.MoveTap(tap=tap, bridge=bridge):
            await host.move_tap(tap, bridge)
        case do.ShapeTap(tap=tap, bandwidth=bandwidth):
            await host.shape_tap(tap, bandwidth)
        case _:
            assert_never(action)


async def _change_qemu(action: OnMachine, *, key: str, host: GuestHost) -> None:
    match action:
        case do.AddNode(machine=machine, disk=disk, node=node):
            options = block_nodes(disk, host.paths(key, machine))
            option = next(each for each in options if each["node-name"] == node)
            await host.execute(key, commands.blockdev_add(option))
        case do.AddNetdev(nic=nic):
            await _add_netdev(nic, key=key, host=host)
        case do.Tell(command=command):
            await host.execute(key, command)
        case do.AskUnplug(device=device):
            await _ask_unplug(device, key=key, host=host)
        case _:
            assert_never(action)


async def _add_netdev(nic: Nic, *, key: str, host: GuestHost) -> None:
    tap = tap_of(nic)
    names = await host.hand_over_tap(key, tap) if tap is not None else ()
    try:
        await host.execute(key, commands.netdev_add(backend_option(nic, names)))
    except Broken:
        for name in names:  # QEMU keeps a descriptor that nobody took, and the tap would live on by it
            with suppress(Broken):  # it was taken before the refusal, and is closed with what took it
                await host.execute(key, commands.closefd(name))
        raise


async def _ask_unplug(device: str, *, key: str, host: GuestHost) -> None:
    try:
        await host.execute(key, commands.device_del(device))
    except Broken as error:
        # The only words QEMU has for it: class GenericError, or DeviceNotFound for one that has gone meanwhile.
        if "already in the process of unplug" not in error.message and "DeviceNotFound" not in error.message:
            raise


async def _perform_on_qemu(action: OnQemu, *, key: str, host: GuestHost) -> None:
    match action:
        case do.SetLink(nic=nic, up=up):
            await host.execute(key, commands.set_link(nic_device(nic), up=up))
        case do.Resume():
            await host.execute(key, commands.cont())
        case do.Pause():
            await host.execute(key, commands.stop())
        case do.PowerDown():
            await host.execute(key, commands.system_powerdown())
        case do.Reset():
            await host.execute(key, commands.system_reset())
        case do.Kill(identity=identity):
            await host.kill(key, identity)
        case _:
            assert_never(action)


async def _save(host: GuestHost, key: str, record: Record) -> None:
    await host.write_file(key, RECORD_FILE, dump_record(record))


async def _launch(action: do.Launch, *, key: str, host: GuestHost) -> Effect:
    await host.prepare_launch(key, action.machine)
    argv = build_argv(action.machine, host.paths(key, action.machine))
    identity = await host.launch(key, argv, timeout_s=min(LAUNCH_TIMEOUT_S, host.facts.greeting_timeout_s))
    record = _launched(action.record, identity, argv)
    await _save(host, key, record)
    return Effect(record=record, wire=None, forgotten=False)


def _launched(record: Record, identity: ProcessIdentity, argv: tuple[str, ...]) -> Record:
    if record.run is None:
        raise ValueError("a launch is recorded before it is done")
    return replace(record, run=replace(record.run, identity=identity, argv=argv))


async def _describe(action: do.WriteDescription, *, wire: VirtualGuest, key: str, host: GuestHost) -> Effect:
    argv = build_argv(action.machine, host.paths(key, action.machine))
    await host.write_file(
        key, SOURCE_FILE, wire.spec.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    )
    await host.write_file(key, NEXT_SCRIPT, launch_script(argv, machine=action.machine).encode())
    await _save(host, key, action.record)
    return Effect(record=action.record, wire=None, forgotten=False)


async def _outcome(action: do.RunTapScript, host: GuestHost) -> ScriptOutcome:
    try:
        return await host.run_script(action.run)
    except Refused as refusal:
        if action.event is do.ScriptEvent.UP:
            raise
        # QEMU is gone: a script that went too must not keep its end from being acknowledged.
        return ScriptOutcome(code=127, output=refusal.message)


async def _run_script(action: do.RunTapScript, *, wire: VirtualGuest, host: GuestHost, api: GuestApi) -> None:
    outcome = await _outcome(action, host)
    output = outcome.output.strip()[-_OUTPUT_CHARS:]
    failed = outcome.code != 0
    how = "timed out" if outcome.code is None else f"exited with code {outcome.code}"
    message = (
        f"tap script {action.run.script} ({action.event.value}) of network {action.nic} {how}: {output or 'no output'}"
    )
    if output or failed:
        reason = Reason.SCRIPT_FAILED.value if failed else "ScriptRan"
        await api.event(wire, reason=reason, message=message, warning=failed)
    if failed and action.event is do.ScriptEvent.UP:
        raise Refused(Reason.SCRIPT_FAILED, message)
