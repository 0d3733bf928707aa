"""The launcher: a small program of its own that starts QEMUs, outlives the agent, and notes how each of them ended.

Run as ``python -S -E -I launcher_daemon.py STATE_DIR RUNTIME_DIR``; one a state directory, by the flock on
``STATE_DIR/launcher.lock``. It imports the standard library only, and little of it: it stays resident beside every
guest. It must never decide anything, never signal a QEMU, and never start one that was not asked for.

Protocol on ``RUNTIME_DIR/launcher.sock``, one request a connection: four bytes of length (network order), then JSON;
descriptors come with the first byte. ``{"version": 1, "op": "launch", "argv", "environment", "uid", "gid", "log",
"launchNote", "exitNote", "fds"}`` → ``{"pid", "startTicks"}`` or ``{"error"}``; ``{"version": 1, "op": "stop"}`` →
``{"stopped": pid}``: it ends and leaves its QEMUs alone.
"""

import array
import fcntl
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
import traceback

# Run by its path with -I: the package is found beside this file, and only standard modules otherwise.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from guestlet.host.launcher_child import Launch, become
from guestlet.host.launcher_notes import append_bounded, boot_id, rotate, start_ticks, tail, write_note

VERSION = 1
IDLE_S = 60.0
REQUEST_LIMIT_BYTES = 4 * 1024 * 1024
_MAX_FDS = 253  # SCM_MAX_FD of Linux
_LENGTH = struct.Struct("!I")


class Connection:
    """One client and what it has sent so far."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.data = b""
        self.fds: list[int] = []

    def receive(self) -> bool:
        """Takes what is there; says whether the client has closed."""
        space = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
        data, control, _, _ = self.peer.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self.fds.extend(numbers)
        self.data += data
        return not data

    def request(self) -> dict[str, object] | None:
        """The request, once it is whole."""
        if len(self.data) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self.data)
        if length > REQUEST_LIMIT_BYTES:
            raise ValueError(f"a request of {length} bytes is too long")
        if len(self.data) < _LENGTH.size + length:
            return None
        found = json.loads(self.data[_LENGTH.size :])
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise ValueError(f"this launcher speaks version {VERSION} of its protocol")
        return found

    def answer(self, reply: dict[str, object]) -> None:
        """Sends the reply; a client that has gone is its own business."""
        data = json.dumps(reply).encode()
        try:
            self.peer.setblocking(True)
            self.peer.settimeout(1)
            self.peer.sendall(_LENGTH.pack(len(data)) + data)
        except OSError:
            return

    def close(self) -> None:
        """Closes the connection and every descriptor that came with it."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.peer.close()


class Child:
    """One QEMU: its descriptors here, and where its output and its end are written."""

    def __init__(self, *, pid: int, start_ticks: int, output: int, log: str, exit_note: str) -> None:
        self.pid = pid
        self.start_ticks = start_ticks
        self.pidfd = os.pidfd_open(pid)
        self.output = output
        self.log = log
        self.exit_note = exit_note

    def pump(self) -> bool:
        """Moves what QEMU has written into the bounded log; says whether QEMU can still write."""
        for _ in range(4):  # a QEMU that never stops talking must not keep the others waiting
            try:
                data = os.read(self.output, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            append_bounded(self.log, data)
        return True

    def note_end(self) -> None:
        """Writes the exit note, then reaps: whoever sees neither process nor zombie may rely on the note."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        if found is None:  # only ever with WNOHANG
            return
        exited = found.si_code == os.CLD_EXITED
        note = {
            "pid": self.pid,
            "startTicks": self.start_ticks,
            "bootId": boot_id(),
            "code": found.si_status if exited else None,
            "signal": None if exited else found.si_status,
            "at": time.time(),
            "logTail": tail(self.log),
        }
        try:
            write_note(self.exit_note, note)
        except OSError:
            traceback.print_exc()  # the guest's directory is gone: forgotten while it ended
        os.waitpid(self.pid, 0)


class Launcher:
    """The loop: clients, starts in progress, children."""

    def __init__(self, state_dir: str, runtime_dir: str) -> None:
        self.socket_path = os.path.join(runtime_dir, "launcher.sock")
        self.selector = selectors.DefaultSelector()
        self.lock = take_lock(os.path.join(state_dir, "launcher.lock"))
        self.clients: set[Connection] = set()
        self.children: dict[int, Child] = {}
        self.stopping = False
        self.listener = self.listen()

    def listen(self) -> socket.socket:
        """A fresh listening socket; the lock says that an old one there is dead."""
        if os.path.lexists(self.socket_path):
            os.unlink(self.socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(self.socket_path)
        listener.listen(128)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        return listener

    def run(self) -> None:
        """Serves until a stop request, SIGTERM, or a minute with neither child nor client."""
        while not self.stopping:
            busy = bool(self.children or self.clients)
            events = self.selector.select(None if busy else IDLE_S)
            for key, _ in events:
                key.data()
            if not events and not busy:
                self.leave_if_idle()

    def stop_on_sigterm(self) -> None:
        """A signal alone does not end select(2) in Python: it writes to a pipe that does."""
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.selector.register(woken, selectors.EVENT_READ, self.stop)

    def leave_if_idle(self) -> None:
        """Ends, unless a client came at the last moment."""
        os.unlink(self.socket_path)
        before = len(self.clients)
        self.accept()
        if len(self.clients) == before:
            self.stopping = True
            return
        self.selector.unregister(self.listener)
        self.listener.close()
        self.listener = self.listen()

    def stop(self) -> None:
        """Ends after this round; QEMUs are left alone."""
        self.stopping = True
        if os.path.lexists(self.socket_path):
            os.unlink(self.socket_path)

    def accept(self) -> None:
        """Takes every client that waits, if it is of our own user."""
        while True:
            try:
                peer, _ = self.listener.accept()
            except BlockingIOError:
                return
            _, uid, _ = struct.unpack("iII", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid():
                peer.close()
                continue
            peer.setblocking(False)
            client = Connection(peer)
            self.clients.add(client)
            self.selector.register(peer, selectors.EVENT_READ, lambda client=client: self.serve(client))

    def serve(self, client: Connection) -> None:
        """Reads on; acts once the request is whole."""
        try:
            closed = client.receive()
            request = client.request()
            if request is not None:
                self.selector.unregister(client.peer)
                self.act(client, request)
            elif closed:
                self.selector.unregister(client.peer)
                self.dismiss(client)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if client.peer.fileno() in self.selector.get_map():
                self.selector.unregister(client.peer)
            client.answer({"error": f"{type(error).__name__}: {error}"})
            self.dismiss(client)

    def act(self, client: Connection, request: dict[str, object]) -> None:
        """One request."""
        if request["op"] == "launch":
            self.launch(client, Launch(request, client.fds))
            return
        if request["op"] == "stop":
            client.answer({"stopped": os.getpid()})
            self.stop()
        else:
            client.answer({"error": f"unknown request {request['op']!r}"})
        self.dismiss(client)

    def dismiss(self, client: Connection) -> None:
        """Done with a client."""
        client.close()
        self.clients.discard(client)

    def launch(self, client: Connection, wanted: Launch) -> None:
        """Forks; the answer waits until the child has become QEMU or has said why not."""
        rotate(wanted.log)
        told, tell = os.pipe2(os.O_CLOEXEC)
        output, written = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            become(wanted, tell=tell, output=written)
        os.close(tell)
        os.close(written)
        os.set_blocking(output, False)
        child = Child(pid=pid, start_ticks=start_ticks(pid), output=output, log=wanted.log, exit_note=wanted.exit_note)
        self.children[pid] = child
        self.selector.register(child.pidfd, selectors.EVENT_READ, lambda: self.bury(child))
        self.selector.register(output, selectors.EVENT_READ, lambda: self.pump(child))
        self.selector.register(told, selectors.EVENT_READ, lambda: self.started(client, child, told))

    def started(self, client: Connection, child: Child, told: int) -> None:
        """The child's pipe closed by exec (empty) or carries the reason why there is no QEMU."""
        reason = os.read(told, 4000).decode(errors="replace")
        self.selector.unregister(told)
        os.close(told)
        client.answer({"error": reason} if reason else {"pid": child.pid, "startTicks": child.start_ticks})
        self.dismiss(client)

    def pump(self, child: Child) -> None:
        """QEMU has written, or closed its output."""
        if not child.pump():
            self.silence(child)

    def silence(self, child: Child) -> None:
        """No more output of this child is expected."""
        if child.output >= 0:
            self.selector.unregister(child.output)
            os.close(child.output)
            child.output = -1

    def bury(self, child: Child) -> None:
        """A QEMU has ended."""
        if child.output >= 0:
            child.pump()
            self.silence(child)
        child.note_end()
        self.selector.unregister(child.pidfd)
        os.close(child.pidfd)
        del self.children[child.pid]


def take_lock(path: str) -> int:
    """The lock of the state directory, with our pid in the file.

    Raises:
        BlockingIOError: another launcher serves this state directory for longer than a leaving one would.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + 2
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def main(state_dir: str, runtime_dir: str) -> None:
    """Listens, lets its starter go on, and serves in the background in a session of its own."""
    os.umask(0o077)
    launcher = Launcher(state_dir, runtime_dir)
    if os.fork():
        os._exit(0)  # the starter sees this: the socket answers
    os.setsid()
    os.chdir("/")
    os.ftruncate(launcher.lock, 0)
    os.pwrite(launcher.lock, str(os.getpid()).encode(), 0)
    errors = os.open(
        os.path.join(state_dir, "launcher.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600
    )
    nothing = os.open("/dev/null", os.O_RDWR)
    for source, target in ((nothing, 0), (errors, 1), (errors, 2)):
        os.dup2(source, target)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    launcher.stop_on_sigterm()
    launcher.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
