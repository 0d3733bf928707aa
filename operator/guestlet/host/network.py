"""Taps and bridges of the node, by the kernel's own calls. Nothing here waits; netlink and ioctl answer at once.

It must never make a tap that outlives its descriptors, touch an interface that is not a tap of the given name, or
create, change or remove a bridge.
Source: Linux Documentation/networking/tuntap.rst; netdevice(7).
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
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCGIFMTU, _SIOCSIFMTU, _SIOCBRADDIF = 0x8913, 0x8914, 0x8921, 0x8922, 0x89A2
_IFF_UP = 0x1
_RTM_DELLINK, _NLM_F_REQUEST, _NLM_F_ACK = 17, 0x1, 0x4
_NETLINK_ROUTE = 0
_SYS_NET = Path("/sys/class/net")


class Taps:
    """The taps made and not yet given to a QEMU: their descriptors live here until the launch."""

    def __init__(self) -> None:
        self._fds: dict[str, tuple[int, ...]] = {}
        self._owners: dict[str, str] = {}

    def open(self, guest: str, request: TapRequest) -> None:
        """Makes the tap, one descriptor a queue, sets it up and puts it on its bridge; again is fine.

        Raises:
            Refused: NoSuchBridge, TapFailed.
        """
        if not 0 < len(request.name.encode()) <= _NAME_LIMIT:
            raise Refused(Reason.TAP_FAILED, f"{request.name!r} is no name of an interface: 1 to {_NAME_LIMIT} bytes")
        if len(self._fds.get(request.name, ())) == request.queues:
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
        self._owners[request.name] = guest

    def fds(self, name: str) -> tuple[int, ...]:
        """Descriptors kept for the next launch; none when the tap was not made."""
        return self._fds.get(name, ())

    def release(self, guest: str) -> None:
        """After the launch: closes our copies, so that the guest's taps vanish with its QEMU."""
        for name in [name for name, owner in self._owners.items() if owner == guest]:
            self._forget(name)

    def close(self, name: str) -> None:
        """Removes the tap if it is there.

        Raises:
            Broken: HostFailure, the interface is no tap, or the kernel will not remove it.
        """
        self._forget(name)
        if not (_SYS_NET / name).exists():
            return
        if not (_SYS_NET / name / "tun_flags").exists():
            raise Broken(Reason.HOST_FAILURE, f"interface {name} is not a tap: it is left alone")
        try:
            _delete_link(name)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                raise Broken(Reason.HOST_FAILURE, f"cannot remove tap {name}: {error}") from error

    def close_all(self) -> None:
        """Closes every descriptor that no QEMU got."""
        for name in tuple(self._fds):
            self._forget(name)

    def _forget(self, name: str) -> None:
        for fd in self._fds.pop(name, ()):
            os.close(fd)
        self._owners.pop(name, None)


def bridge_exists(name: str) -> bool:
    """Whether the interface exists and is a bridge."""
    return bool(name) and "/" not in name and name not in (".", "..") and (_SYS_NET / name / "bridge").is_dir()


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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        if request.bridge is not None:
            if not bridge_exists(request.bridge):
                raise Refused(Reason.NO_SUCH_BRIDGE, f"the node has no bridge {request.bridge}")
            bridge = request.bridge.encode()
            # A bridge takes the smallest MTU of its ports: a tap of 1500 must not be refused jumbo frames, nor a small
            # bridge be overrun.
            mtu = fcntl.ioctl(control, _SIOCGIFMTU, _IFREQ_INT.pack(bridge, 0))
            fcntl.ioctl(control, _SIOCSIFMTU, _IFREQ_INT.pack(name, _IFREQ_INT.unpack(mtu)[1]))
            index = socket.if_nametoindex(request.name)
            fcntl.ioctl(control, _SIOCBRADDIF, _IFREQ_INT.pack(bridge, index))
        flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(name, 0)))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))


def _delete_link(name: str) -> None:
    """RTM_DELLINK: works whoever holds the tap, unlike TUNSETPERSIST."""
    index = socket.if_nametoindex(name)
    message = struct.pack("=IHHII BxHiII", 32, _RTM_DELLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0, 0, 0, index, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as netlink:
        netlink.settimeout(2)
        netlink.send(message)
        answer = netlink.recv(4096)
    (code,) = struct.unpack_from("=i", answer, 16)
    if code:
        raise OSError(-code, os.strerror(-code))
