"""Records what each QEMU says of itself, so that the tests know the answers of versions that a machine lacks.

It must never change an answer beyond leaving out what the parser does not read.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from guestlet.host.capabilities import ask_qemu
from guestlet.host.trial import QemuProgram
from sandbox.qemu import ensure_qemu, ensure_system_qemu, read_version

_KEPT_OF_ENTRY = ("name", "alias", "alias-of", "option", "deprecated")
_KEPT_OF_SCHEMA = ("netdev_add", "blockdev-add")


def record_capabilities(folder: Path, say: Callable[[str], None] = print) -> None:
    """Writes ``7.2.json`` if that is the system's QEMU, and ``10.json``.

    Raises: SandboxError when one of them cannot be had, guestlet's Broken when it does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for build in (ensure_system_qemu(say), ensure_qemu(10, say)):
        version = read_version(build)
        name = "7.2" if version[:2] == (7, 2) else str(version[0])
        program = QemuProgram(binary=build.binary, module_dir=build.module_dir, data_dirs=build.data_dirs)
        replies = trim(asyncio.run(ask_qemu(program)))
        path = folder / f"{name}.json"
        # One entry a line: a new version's differences can be read.
        lines = ",\n".join(f"{json.dumps(key)}: {_text(reply)}" for key, reply in replies.items())
        path.write_text(f"{{\n{lines}\n}}\n")
        say(f"recorded {path}")


def trim(replies: Mapping[str, object]) -> dict[str, object]:
    """The replies without what the parser does not read."""
    return {
        name: _trim_schema(reply) if name == "query-qmp-schema" else _trim(reply) for name, reply in replies.items()
    }


def _trim(reply: object) -> object:
    if not isinstance(reply, list):
        return reply
    kept = [{key: entry[key] for key in _KEPT_OF_ENTRY if key in entry} for entry in reply]
    return sorted(kept, key=lambda entry: str(entry.get("name", entry.get("option"))))


def _trim_schema(reply: object) -> object:
    """The commands that the parser walks, and the types that are at most three steps away from them."""
    if not isinstance(reply, list):
        return reply
    types = {entry["name"]: entry for entry in reply}
    kept: set[str] = set()
    reached = set(_KEPT_OF_SCHEMA)
    for _ in range(4):
        kept |= reached
        described = [types[name] for name in reached]
        reached = {entry["arg-type"] for entry in described if "arg-type" in entry}
        parts = [part for entry in described for key in ("members", "variants") for part in entry.get(key, ())]
        # The members of an enumeration have no type.
        reached |= {part["type"] for part in parts if "type" in part}
    return [types[name] for name in sorted(kept)]


def _text(reply: object) -> str:
    if not isinstance(reply, list):
        return json.dumps(reply)
    return "[\n" + ",\n".join(json.dumps(entry) for entry in reply) + "\n]"
