"""``guestlet console``: the serial console of a guest on this node, in the terminal."""

import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from guestlet.cli.settings import config_option, local_guest

ESCAPE = b"\x1d"  # Ctrl-], as telnet and virsh have it


@click.command()
@click.argument("guest")
@config_option(required=False)
def console(guest: str, config: Path | None) -> None:
    """Connect to the serial console of GUEST (namespace/name). Ctrl-] leaves; the guest runs on."""
    found = local_guest(guest, config)
    line = _connect(found.runtime_dir / "console", guest)
    with line, _raw(sys.stdin.fileno()):
        if sys.stdin.isatty():
            click.echo(f"connected to {guest}; Ctrl-] leaves\r", err=True)
        _carry(line, sys.stdin.fileno(), sys.stdout.fileno())
    click.echo("\r\nleft the console; the guest runs on", err=True)


def _connect(path: Path, guest: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(path))
    except OSError as error:
        line.close()
        raise click.ClickException(
            f"the console of {guest} does not answer ({error.strerror}): does the guest run? One client at a time"
        ) from error
    return line


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on; put back as it was, however the console ends."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _carry(line: socket.socket, keys: int, screen: int) -> None:
    """Carries bytes both ways until Ctrl-], the guest's end, or the end of a standard input that is no terminal."""
    sources: list[int | socket.socket] = [line, keys]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if line in ready:
            data = line.recv(65536)
            if not data:
                return
            os.write(screen, data)
        if keys in ready:
            typed = os.read(keys, 4096)
            head, escape, _ = typed.partition(ESCAPE)
            if head:
                line.sendall(head)
            if escape:
                return
            if not typed:
                sources.remove(keys)
