"""Ports are remembered, and a taken one is noticed."""

import socket
from pathlib import Path

import pytest

from sandbox.ports import free_port, is_free, remember_ports, remembered_ports


def test_what_was_remembered_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "control-plane" / "ports.json"
    remember_ports(file, {"etcd": 20001})
    assert remembered_ports(file) == {"etcd": 20001}


@pytest.mark.parametrize("content", [None, "", "[]", '{"etcd": "x"}', "{"])
def test_a_damaged_or_absent_file_remembers_nothing(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ports.json"
    if content is not None:
        file.write_text(content)
    assert remembered_ports(file) == {}


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_a_free_port_lies_below_the_ephemeral_ones() -> None:
    port = free_port()
    assert 1024 < port < 32768
    assert is_free(port)
