"""Limits of taps, by tc(8): towards the guest a token bucket at the tap's egress, from it a policer at ingress.

It must never touch a queueing discipline or filter that is not its own, nor leave one direction changed when the other
was refused.
tc and not netlink of our own: it makes the kernel's rate tables, and what it is told an administrator can tell it too.
Nor pyroute2, whose import alone costs the agent 13 MiB and a quarter of a second.
Source: tc-tbf(8), tc-police(8); Linux net/sched/sch_tbf.c, act_police.c.
"""

import asyncio
import re
import shutil
from dataclasses import dataclass

from guestlet.api.reasons import Reason
from guestlet.errors import GuestletError, Refused, Unknown
from guestlet.host.network import is_tap
from guestlet.qemu.machine import Bandwidth

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 5.0
_HANDLE = "676c:"  # names our queueing discipline among others'
_PREFERENCES = ("26476", "26477")  # of our filters; a new limit takes the other one before the old one goes
_LARGEST_PACKET_BYTES = 66560  # a segment of 64 KiB that the guest or the node leaves to the other to cut, and headers
_BURSTS_PER_SECOND = 100  # the slowest timer of a kernel: each tick must let through what belongs to it
_LARGEST_BURST_BYTES = 1 << 30  # the kernel counts in 32 bits
_QUEUE_PER_SECOND = 20  # what waits longer than 50 ms is dropped
_UNSUPPORTED = re.compile(
    "classifier not found|TC action module|qdisc kind is unknown|not supported|No such file or directory|Unknown filter"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    code: int
    output: str
    errors: str


async def shape_tap(name: str, bandwidth: Bandwidth | None) -> None:
    """Sets a tap's limits as the guest sees the directions, or takes them away; again is fine.

    Raises:
        Refused: BandwidthUnsupported (the kernel's module for it is named), TapFailed. Either way the tap's limits
            are as they were.
        Unknown: HostFailure, tc did not answer.
    """
    if not is_tap(name):
        raise Refused(Reason.TAP_FAILED, f"the node has no tap {name}")
    if bandwidth is None and shutil.which("tc", path=_PATH) is None:
        return  # nobody can have set one
    inbound = bandwidth.inbound_bytes if bandwidth else None
    outbound = bandwidth.outbound_bytes if bandwidth else None
    before = await _policers(name)
    added = await _police(name, outbound, before=before) if outbound is not None else None
    try:
        await _limit_egress(name, inbound)
    except GuestletError:
        if added is not None:
            await _remove_policers(name, (added,), last=not before)
        raise
    await _remove_policers(name, before, last=outbound is None)


def burst_bytes(rate_bytes: int) -> int:
    """How much may pass at once: what a tick of the kernel's clock lets through, and never less than one packet."""
    return min(max(_LARGEST_PACKET_BYTES, rate_bytes // _BURSTS_PER_SECOND), _LARGEST_BURST_BYTES)


async def _limit_egress(name: str, rate_bytes: int | None) -> None:
    if rate_bytes is None:
        if f"qdisc tbf {_HANDLE} root" in (await _ask("qdisc", "show", "dev", name)).output:
            await _tell("qdisc", "del", "dev", name, "root", module="sch_tbf")
        return
    burst = burst_bytes(rate_bytes)
    limit = min(burst + rate_bytes // _QUEUE_PER_SECOND, 2 * _LARGEST_BURST_BYTES)
    bucket = ("tbf", "rate", f"{rate_bytes}bps", "burst", f"{burst}b", "limit", f"{limit}b")
    await _tell("qdisc", "replace", "dev", name, "root", "handle", _HANDLE, *bucket, module="sch_tbf")


async def _policers(name: str) -> tuple[str, ...]:
    """Preferences of our filters at the tap's ingress."""
    shown = (await _ask("filter", "show", "dev", name, "ingress")).output
    found = set(re.findall(r"\bpref (\d+)\b", shown))
    return tuple(each for each in _PREFERENCES if each in found)


async def _police(name: str, rate_bytes: int, *, before: tuple[str, ...]) -> str:
    """Adds a policer beside the ones before; returns its preference."""
    fresh = next(each for each in _PREFERENCES if each not in before[:1])
    if fresh in before:
        await _remove_policers(name, (fresh,), last=False)
    made = await _make_ingress(name)
    # Without an mtu it takes what is larger than 2 KiB for a breach, as what a guest leaves to the node to cut is.
    limit = ("rate", f"{rate_bytes}bps", "burst", f"{burst_bytes(rate_bytes)}b", "mtu", f"{_LARGEST_PACKET_BYTES}b")
    match = ("protocol", "all", "pref", fresh, "matchall")
    try:
        await _tell(
            *("filter", "add", "dev", name, "ingress", *match),
            *("action", "police", *limit, "conform-exceed", "drop/ok"),
            module="act_police and cls_matchall",
        )
    except GuestletError:
        if made:
            await _tell("qdisc", "del", "dev", name, "ingress", module="sch_ingress")
        raise
    return fresh


async def _make_ingress(name: str) -> bool:
    """Says whether there was none."""
    if re.search(r"qdisc (ingress|clsact) ", (await _ask("qdisc", "show", "dev", name)).output):
        return False
    await _tell("qdisc", "add", "dev", name, "ingress", module="sch_ingress")
    return True


async def _remove_policers(name: str, preferences: tuple[str, ...], *, last: bool) -> None:
    for each in preferences:
        await _tell("filter", "del", "dev", name, "ingress", "pref", each, module="cls_matchall")
    if preferences and last and "pref" not in (await _ask("filter", "show", "dev", name, "ingress")).output:
        await _tell("qdisc", "del", "dev", name, "ingress", module="sch_ingress")


async def _tell(*arguments: str, module: str) -> None:
    answer = await _ask(*arguments)
    if answer.code == 0:
        return
    said = " ".join(answer.errors.split())
    if _UNSUPPORTED.search(said) is not None:
        raise Refused(
            Reason.BANDWIDTH_UNSUPPORTED, f"the node's kernel lacks {module}, which limits that direction: {said}"
        )
    raise Refused(Reason.TAP_FAILED, f"tc {' '.join(arguments)}: {said}")


async def _ask(*arguments: str) -> _Answer:
    command = ("tc", *arguments)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={"PATH": _PATH, "LC_ALL": "C"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Refused(
            Reason.BANDWIDTH_UNSUPPORTED, "the node has no tc: install iproute2, or remove bandwidth"
        ) from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise Unknown(Reason.HOST_FAILURE, f"{' '.join(command)} did not end within {_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _Answer(code=process.returncode or 0, output=output.decode(), errors=errors.decode())
