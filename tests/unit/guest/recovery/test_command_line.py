"""What a command line says of drives and monitors: hints."""

import pytest

from guestlet.guest.recovery.command_line import (
    DriveHint,
    monitor_sockets,
    other_sockets,
    read_command_line,
    split_options,
)


def test_doubled_commas_are_commas_and_words_are_keys() -> None:
    assert split_options("socket,id=a,path=/x,,y,server") == {"socket": "", "id": "a", "path": "/x,y", "server": ""}


def test_a_node_says_how_its_file_does_io_wherever_that_stands() -> None:
    line = read_command_line(
        (
            *("qemu", "-blockdev", '{"driver":"file","node-name":"f","filename":"/a","aio":"native"}'),
            *("-blockdev", '{"driver":"qcow2","node-name":"q","file":"f","discard":"unmap"}'),
            *("-blockdev", "driver=raw,node-name=r,file.driver=file,file.filename=/b,file.aio=io_uring"),
            *("--blockdev", '{"driver":"raw","node-name":"n","file":{"driver":"file","aio":"threads"}}'),
            *("-drive", "file=/c,if=none,id=d,aio=native,discard=on,cache=none"),
            *("-blockdev", "{not json"),
        )
    )

    assert line.drives["q"] == DriveHint(aio="native", discard="unmap", cache=None)
    assert line.drives["r"] == DriveHint(aio="io_uring", discard=None, cache=None)
    assert line.drives["n"] == DriveHint(aio="threads", discard=None, cache=None)
    assert line.drives["d"] == DriveHint(aio="native", discard="on", cache="none")


def test_the_last_word_of_an_option_counts() -> None:
    line = read_command_line(("qemu", "-m", "64", "-m", "128,maxmem=1G", "-S"))

    assert line.setting("-m", "maxmem") == "1G"
    assert line.setting("-smp", "cpus") is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("-qmp", "unix:/run/m,server=on,wait=off"),
        ("--qmp-pretty", "unix:/run/m,server=on"),
        ("-chardev", "socket,id=c,path=/run/m,server=on,wait=off", "-mon", "chardev=c,mode=control"),
        ("-mon", "chardev=c,mode=control,id=x", "-chardev", "socket,path=/run/m,id=c,server=on"),
        ("-mon", "c,mode=control", "-chardev", "socket,path=/run/m,id=c,server=on"),
    ],
)
def test_a_monitor_is_found_however_it_is_written(arguments: tuple[str, ...]) -> None:
    assert monitor_sockets(("qemu", *arguments)) == ("/run/m",)


def test_what_is_no_monitor_of_machines_is_none() -> None:
    argv = (
        *("qemu", "-chardev", "socket,id=s,path=/run/serial,server=on", "-serial", "chardev:s"),
        *("-chardev", "socket,id=h,path=/run/hmp,server=on", "-mon", "chardev=h,mode=readline"),
        *("-monitor", "unix:/run/human,server=on", "-qmp", "tcp:localhost:4444,server=on"),
    )

    assert monitor_sockets(argv) == ()
    assert other_sockets(argv) == {"/run/serial", "/run/hmp", "/run/human"}
