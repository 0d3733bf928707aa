"""What the command line says of drives, which QEMU itself cannot be asked: a hint, never the truth. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveHint:
    """The options of one drive as given, ``None`` where nothing was said: ``aio``, ``discard`` and ``cache``."""

    aio: str | None
    discard: str | None
    cache: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """``drives`` by node-name or id; ``options``: the last value of each option that is no drive."""

    drives: Mapping[str, DriveHint]
    options: Mapping[str, str]

    def setting(self, option: str, key: str) -> str | None:
        """One ``key=value`` of an option."""
        return split_options(self.options.get(option, "")).get(key)


def read_command_line(argv: tuple[str, ...]) -> CommandLine:
    """The hints in an argv; what cannot be read says nothing."""
    nodes: dict[str, Mapping[str, object]] = {}
    drives: dict[str, DriveHint] = {}
    options: dict[str, str] = {}
    for option, value in zip(argv, (*argv[1:], ""), strict=False):
        word = option.replace("--", "-", 1)
        if word == "-blockdev":
            node = _node(value)
            nodes[str(node.get("node-name", ""))] = node
        elif word == "-drive":
            drive = split_options(value)
            drives[drive.get("id", "")] = DriveHint(
                aio=drive.get("aio"), discard=drive.get("discard"), cache=drive.get("cache")
            )
        elif word.startswith("-"):
            options[word] = value
    layered = {name: _hint(node, nodes) for name, node in nodes.items()}
    return CommandLine(drives={**drives, **layered}, options=options)


def _node(value: str) -> Mapping[str, object]:
    if value.startswith("{"):
        try:
            found = json.loads(value)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}
    return split_options(value)


def _hint(node: Mapping[str, object], nodes: Mapping[str, Mapping[str, object]]) -> DriveHint:
    below = node.get("file")
    file = nodes.get(below, {}) if isinstance(below, str) else below if isinstance(below, dict) else {}
    aio = file.get("aio", node.get("file.aio", node.get("aio")))
    discard = node.get("discard", file.get("discard"))
    return DriveHint(
        aio=aio if isinstance(aio, str) else None, discard=discard if isinstance(discard, str) else None, cache=None
    )


def split_options(text: str) -> dict[str, str]:
    """``a,b=c,d=e`` as a mapping; doubled commas are commas (QEMU manual), a word without ``=`` is a key of its own."""
    parts = [each.replace("\0", ",") for each in text.replace(",,", "\0").split(",")]
    return {key: value for key, _, value in (part.partition("=") for part in parts)}


def monitor_sockets(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of the Unix sockets on which the command line has QMP, in its order."""
    paths: dict[str, str] = {}
    found: list[str] = []
    for option, value in pairwise(argv):
        settings = split_options(value)
        match option.replace("--", "-", 1):
            case "-chardev" if "socket" in settings and settings.get("path"):
                paths[settings.get("id", "")] = settings["path"]
            case "-mon" if settings.get("mode") == "control" or "control" in settings:
                found.append(settings.get("chardev", value.partition(",")[0]))
            case "-qmp" | "-qmp-pretty" if value.startswith("unix:"):
                found.append(value.partition(",")[0])
    named = (paths.get(each, each.removeprefix("unix:") if each.startswith("unix:") else "") for each in found)
    return tuple(each for each in named if each)


def other_sockets(argv: tuple[str, ...]) -> frozenset[str]:
    """Paths of Unix sockets that the command line uses for anything: what is none of these may be a monitor."""
    parts = (each for value in argv for each in split_options(value).items())
    paths = {value for key, value in parts if key == "path"}
    return frozenset(
        paths | {each.partition(",")[0].removeprefix("unix:") for each in argv if each.startswith("unix:")}
    )
