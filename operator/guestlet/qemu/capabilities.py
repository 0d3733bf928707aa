"""What one QEMU binary can do, told by itself: every decision that depends on QEMU reads this, never a version number.

It must never run QEMU (that is ``host.capabilities``), and never guess what a reply leaves out: an answer that cannot
be read is ``Broken``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from guestlet.api.reasons import Reason
from guestlet.errors import Broken

# What is asked, in this order: a name for the reply, the command, its arguments.
QUERIES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("query-version", "query-version", {}),
    ("query-machines", "query-machines", {}),
    ("query-cpu-definitions", "query-cpu-definitions", {}),
    ("devices", "qom-list-types", {"implements": "device"}),
    ("objects", "qom-list-types", {"implements": "user-creatable"}),
    ("query-commands", "query-commands", {}),
    ("query-command-line-options", "query-command-line-options", {}),
    ("query-qmp-schema", "query-qmp-schema", {}),
)

# The form of the cache file; another one is asked again, not upgraded.
_FORM = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a QEMU binary offers.

    ``version`` is for people: nothing may be decided on it. ``machine_types`` leads from a family (``q35``, ``pc``) to
    its newest versioned name, ``all_machine_types`` has every name that ``-machine`` takes. ``cpu_models`` has every
    name that ``-cpu`` takes, ``cpu_aliases`` the versioned name behind each that is only an alias
    (``Nehalem`` → ``Nehalem-v1``). ``devices`` are the drivers of ``-device``, ``objects`` the types of ``-object``,
    ``commands`` the QMP commands, ``netdevs``, ``block_drivers`` and ``file_aio`` the words of ``netdev_add``, of
    ``blockdev-add`` and of its ``aio`` on files. ``sandbox``: the build has seccomp.
    """

    version: str
    machine_types: Mapping[str, str]
    all_machine_types: tuple[str, ...]
    cpu_models: tuple[str, ...]
    cpu_aliases: Mapping[str, str]
    devices: frozenset[str]
    objects: frozenset[str]
    commands: frozenset[str]
    netdevs: frozenset[str]
    block_drivers: frozenset[str]
    file_aio: frozenset[str]
    sandbox: bool

    def versioned_model(self, name: str) -> str:
        """The named CPU model with its version, which means the same in every later QEMU.

        A name that is no alias (``Nehalem-v1``, ``max``, ``host``) is given back as it is.

        Raises:
            Broken: this QEMU knows no such model.
        """
        if name not in self.cpu_models:
            raise Broken(Reason.UNKNOWN_CPU_MODEL, f"QEMU {self.version} knows no CPU model {name!r}")
        return self.cpu_aliases.get(name, name)


def parse_capabilities(replies: Mapping[str, object]) -> Capabilities:
    """What the ``return`` values of ``QUERIES``, by their names, say.

    Raises:
        Broken: a reply is missing or is not of the form that QEMU's schema promises.
    """
    try:
        return _parse(replies)
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(
            Reason.QMP_REFUSED, f"QEMU describes itself in a way this program cannot read: {error!r}"
        ) from error


def dump_capabilities(capabilities: Capabilities) -> str:
    """The text of a cache file; equal capabilities give equal texts."""
    fields = {
        name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(capabilities).items()
    }
    return json.dumps({"form": _FORM, **fields}, indent=1, sort_keys=True) + "\n"


def load_capabilities(text: str) -> Capabilities:
    """The capabilities that ``dump_capabilities`` wrote.

    Raises:
        Broken: the text is damaged or of another form: ask QEMU again.
    """
    try:
        fields = _mapping(json.loads(text))
        if fields["form"] != _FORM:
            raise ValueError(f"form {fields['form']!r}")
        return Capabilities(
            version=_text(fields["version"]),
            machine_types=_text_mapping(fields["machine_types"]),
            all_machine_types=tuple(_texts(fields["all_machine_types"])),
            cpu_models=tuple(_texts(fields["cpu_models"])),
            cpu_aliases=_text_mapping(fields["cpu_aliases"]),
            devices=frozenset(_texts(fields["devices"])),
            objects=frozenset(_texts(fields["objects"])),
            commands=frozenset(_texts(fields["commands"])),
            netdevs=frozenset(_texts(fields["netdevs"])),
            block_drivers=frozenset(_texts(fields["block_drivers"])),
            file_aio=frozenset(_texts(fields["file_aio"])),
            sandbox=fields["sandbox"] is True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(Reason.QMP_REFUSED, f"kept capabilities cannot be read: {error!r}") from error


def _parse(replies: Mapping[str, object]) -> Capabilities:
    machines = _entries(replies["query-machines"])
    models = _entries(replies["query-cpu-definitions"])
    schema = _Schema(replies["query-qmp-schema"])
    numbers = _mapping(_mapping(replies["query-version"])["qemu"])
    options = _names(replies["query-command-line-options"], "option")
    families = {_text(entry["alias"]): _text(entry["name"]) for entry in machines if "alias" in entry}
    aliases = {_text(entry["name"]): _text(entry["alias-of"]) for entry in models if "alias-of" in entry}
    return Capabilities(
        version=".".join(str(_number(numbers[part])) for part in ("major", "minor", "micro")),
        machine_types=dict(sorted(families.items())),
        all_machine_types=tuple(sorted(_text(entry["name"]) for entry in machines)),
        cpu_models=tuple(sorted(_text(entry["name"]) for entry in models)),
        cpu_aliases=dict(sorted(aliases.items())),
        devices=_names(replies["devices"], "name"),
        objects=_names(replies["objects"], "name"),
        commands=_names(replies["query-commands"], "name"),
        netdevs=schema.words("netdev_add", "type"),
        block_drivers=schema.words("blockdev-add", "driver"),
        file_aio=schema.words("blockdev-add", "aio", case="file"),
        sandbox="sandbox" in options,
    )


class _Schema:
    """``query-qmp-schema``: types by their (meaningless) names, walked from a command's arguments.

    The form: docs/devel/qapi-code-gen.rst of QEMU, "Client JSON Protocol introspection".
    """

    def __init__(self, reply: object) -> None:
        self._types = {_text(entry["name"]): entry for entry in _entries(reply)}

    def words(self, command: str, member: str, *, case: str | None = None) -> frozenset[str]:
        """The words that a member of a command's arguments, or of their variant ``case``, may be; none if there is
        no such command, member or variant.
        """
        described = self._types.get(command)
        arguments = self._types[_text(described["arg-type"])] if described else {}
        if case is not None:
            chosen = [_text(each["type"]) for each in _entries(arguments.get("variants", [])) if each["case"] == case]
            arguments = self._types[chosen[0]] if chosen else {}
        kinds = [_text(each["type"]) for each in _entries(arguments.get("members", [])) if each["name"] == member]
        return _names(self._types[kinds[0]]["members"], "name") if kinds else frozenset()


def _entries(value: object) -> tuple[Mapping[str, object], ...]:
    if not isinstance(value, list):
        raise TypeError(f"not a list: {value!r:.80}")
    return tuple(_mapping(each) for each in value)


def _names(value: object, key: str) -> frozenset[str]:
    return frozenset(_text(entry[key]) for entry in _entries(value))


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"not an object: {value!r:.80}")
    return value


def _texts(value: object) -> Iterable[str]:
    if not isinstance(value, list):
        raise TypeError(f"not a list: {value!r:.80}")
    return (_text(each) for each in value)


def _text_mapping(value: object) -> Mapping[str, str]:
    return {name: _text(each) for name, each in _mapping(value).items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r:.80}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not a number: {value!r:.80}")
    return value
