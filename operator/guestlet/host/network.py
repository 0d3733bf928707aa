"""Taps and bridges of the node, by the kernel's own calls. Nothing here waits; netlink and ioctl answer at once.

It must never make a tap that outlives its descriptors, touch an interface that is not a tap of the given name, or
create, change or remove a bridge.
Source: Linux Documentation/networking/tuntap.rst; netdevice(7); rtnetlink(7).
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from guestlet.api.reasons import Reason
from guestlet.errors import Broken, Refused
from guestlet.host.facts import TapRequest

_NAME_LIMIT = 15
_IFREQ = struct.Struct("16sH22x")
_IFREQ_INT = struct.Struct("16si20x")
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE, _IFF_VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFMTU, _SIOCSIFMTU = 0x8913, 0x8914, 0x8921, 0x8922
_IFF_UP = 0x1
_RTM_DELLINK, _RTM_SETLINK, _NLM_F_REQUEST, _NLM_F_ACK = 17, 19, 0x1, 0x4
_IFLA_MASTER = 10
_LINK_MESSAGE = struct.Struct("=IHHIIBxHiII")  # nlmsghdr and ifinfomsg
_NETLINK_ROUTE = 0
_SYS_NET = Path("/sys/class/net")


class Taps:
    """The taps made and not yet given to a QEMU: their descriptors live here until the launch or the hand-over."""

    def __init__(self) -> None:
        self._fds: dict[str, tuple[int, ...]] = {}
        self._made: dict[str, tuple[str, TapRequest]] = {}

    def open(self, guest: str, request: TapRequest) -> None:
        """Makes the tap, one descriptor a queue, sets it up and puts it on its bridge; again is fine.

        Raises:
            Refused: NoSuchBridge, TapFailed.
        """
        if not 0 < len(request.name.encode()) <= _NAME_LIMIT:
            raise Refused(Reason.TAP_FAILED, f"{request.name!r} is no name of an interface: 1 to {_NAME_LIMIT} bytes")
        if self._made.get(request.name) == (guest, request):
            return
        self.close(request.name)
        try:
            with contextlib.ExitStack() as opened:
                fds = []
                for _ in range(request.queues):
                    fds.append(_open_queue(request))
                    opened.callback(os.close, fds[-1])
                _connect(request)
                opened.pop_all()
        except OSError as error:
            raise Refused(
                Reason.TAP_FAILED, f"cannot make tap {request.name}: {os.strerror(error.errno or 0)}"
            ) from error
        self._fds[request.name] = tuple(fds)
        self._made[request.name] = (guest, request)

    def fds(self, name: str) -> tuple[int, ...]:
        """Descriptors kept for QEMU; none when the tap was not made."""
        return self._fds.get(name, ())

    def let_go(self, name: str) -> None:
        """Closes our copies: the tap vanishes with whoever else has it, or at once."""
        for fd in self._fds.pop(name, ()):
            os.close(fd)
        self._made.pop(name, None)

    def release(self, guest: str) -> None:
        """Lets go of all of a guest's: after its launch, before which nothing of it can have been being plugged."""
        for name in [name for name, (owner, _) in self._made.items() if owner == guest]:
            self.let_go(name)

    def close(self, name: str) -> None:
        """Removes the tap if it is there.

        Raises:
            Broken: HostFailure, the interface is no tap, or the kernel will not remove it.
        """
        self.let_go(name)
        if not (_SYS_NET / name).exists():
            return
        if not is_tap(name):
            raise Broken(Reason.HOST_FAILURE, f"interface {name} is not a tap: it is left alone")
        try:
            _delete_link(name)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                raise Broken(Reason.HOST_FAILURE, f"cannot remove tap {name}: {error}") from error

    def close_all(self) -> None:
        """Closes every descriptor that no QEMU got."""
        for name in tuple(self._fds):
            self.let_go(name)


def bridge_exists(name: str) -> bool:
    """Whether the interface exists and is a bridge."""
    return _is_plain(name) and (_SYS_NET / name / "bridge").is_dir()


def is_tap(name: str) -> bool:
    """Whether the interface exists and is a tap."""
    return _is_plain(name) and (_SYS_NET / name / "tun_flags").exists()


def move_tap(name: str, bridge: str) -> None:
    """Puts an existing tap on another bridge, with that bridge's MTU; the guest's link stays up. Again is fine.

    Raises:
        Refused: NoSuchBridge, TapFailed (then it is where it was).
    """
    if not is_tap(name):
        raise Refused(Reason.TAP_FAILED, f"the node has no tap {name}")
    if not bridge_exists(bridge):
        raise _no_such_bridge(bridge)
    before = _master(name)
    if before == bridge:
        return
    try:
        # Off the old bridge first: that one would take a smaller MTU over from its port.
        _set_master(name, None)
        _join(name, bridge)
    except OSError as error:
        if before is not None:
            with contextlib.suppress(OSError):
                _join(name, before)
        raise Refused(
            Reason.TAP_FAILED, f"cannot put tap {name} on bridge {bridge}: {os.strerror(error.errno or 0)}"
        ) from error


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and name not in (".", "..")


def _no_such_bridge(bridge: str) -> Refused:
    return Refused(Reason.NO_SUCH_BRIDGE, f"the node has no bridge {bridge}")


def _open_queue(request: TapRequest) -> int:
    name = request.name.encode()
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if request.queues > 1 else 0)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name, flags))
    except OSError:
        os.close(fd)
        raise
    return fd


def _connect(request: TapRequest) -> None:
    name = request.name.encode()
    if request.bridge is not None:
        if not bridge_exists(request.bridge):
            raise _no_such_bridge(request.bridge)
        _join(request.name, request.bridge)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(name, 0)))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))


def _join(name: str, bridge: str) -> None:
    """A bridge takes the smallest MTU of its ports: a tap of 1500 must not be refused jumbo frames, nor a small bridge
    be overrun.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        mtu = fcntl.ioctl(control, _SIOCGIFMTU, _IFREQ_INT.pack(bridge.encode(), 0))
        fcntl.ioctl(control, _SIOCSIFMTU, _IFREQ_INT.pack(name.encode(), _IFREQ_INT.unpack(mtu)[1]))
    _set_master(name, bridge)


def _master(name: str) -> str | None:
    try:
        return (_SYS_NET / name / "master").readlink().name
    except FileNotFoundError:
        return None


def _index(name: str) -> int:
    try:
        return int((_SYS_NET / name / "ifindex").read_text())
    except FileNotFoundError as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error


def _set_master(name: str, master: str | None) -> None:
    """RTM_SETLINK: unlike the bridge's own ioctl, it also takes a port off what is no bridge."""
    index = _index(master) if master is not None else 0
    _change_link(_RTM_SETLINK, name, struct.pack("=HHI", 8, _IFLA_MASTER, index))


def _delete_link(name: str) -> None:
    """RTM_DELLINK: works whoever holds the tap, unlike TUNSETPERSIST."""
    _change_link(_RTM_DELLINK, name, b"")


def _change_link(kind: int, name: str, attributes: bytes) -> None:
    index = _index(name)
    flags = _NLM_F_REQUEST | _NLM_F_ACK
    length = _LINK_MESSAGE.size + len(attributes)
    message = _LINK_MESSAGE.pack(length, kind, flags, 1, 0, 0, 0, index, 0, 0) + attributes
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as netlink:
        netlink.settimeout(2)
        netlink.send(message)
        answer = netlink.recv(4096)
    (code,) = struct.unpack_from("=i", answer, 16)
    if code:
        raise OSError(-code, os.strerror(-code))
