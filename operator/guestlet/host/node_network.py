"""Bridges, taps and tap scripts of the node: one half of ``node.NodeHost``.

It must never know of a process but the scripts it runs.
"""

from guestlet.host import network
from guestlet.host.facts import ScriptOutcome, ScriptRun, TapRequest
from guestlet.host.scripts import Scripts
from guestlet.host.shaping import shape_tap
from guestlet.qemu.machine import Bandwidth
from guestlet.settings import AgentSettings


class NodeNetwork:
    """The part of a node that connects guests."""

    def __init__(self, settings: AgentSettings) -> None:
        self._scripts = Scripts(settings.scripts_dir, timeout_s=settings.script_timeout_seconds)
        self._taps = network.Taps()

    async def bridge_exists(self, name: str) -> bool:
        """Whether the bridge exists on the node now."""
        return network.bridge_exists(name)

    async def script_exists(self, name: str) -> bool:
        """Whether the script is an executable regular file right in the scripts directory."""
        return self._scripts.exists(name)

    async def open_tap(self, guest: str, request: TapRequest) -> None:
        """Makes the tap, sets it up on its bridge, and keeps its descriptors for the guest's next launch.

        Raises:
            Refused: NoSuchBridge, TapFailed.
        """
        self._taps.open(guest, request)

    async def close_tap(self, name: str) -> None:
        """Removes the tap if it is there.

        Raises:
            Broken: HostFailure, the interface is not a tap.
        """
        self._taps.close(name)

    async def move_tap(self, name: str, bridge: str) -> None:
        """Puts an existing tap on another bridge; again is fine.

        Raises:
            Refused: NoSuchBridge, TapFailed.
        """
        network.move_tap(name, bridge)

    async def shape_tap(self, name: str, bandwidth: Bandwidth | None) -> None:
        """Sets the limits of an existing tap, or takes them away; again is fine.

        Raises:
            Refused: BandwidthUnsupported, TapFailed. Unknown: HostFailure, tc did not answer.
        """
        await shape_tap(name, bandwidth)

    async def run_script(self, run: ScriptRun) -> ScriptOutcome:
        """Runs a tap script with a time limit.

        Raises:
            Refused: NoSuchScript, ScriptFailed.
        """
        return await self._scripts.run(run)
