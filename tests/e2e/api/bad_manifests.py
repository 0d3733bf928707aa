"""The manifests of ``tests/e2e/bad/``: what is wrong with each, and who says so, stands in its first line.

``# refused: <fragment of the message>``: the API server does not take it.
``# stalled: <Reason>: <fragment of the message>``: the node finds out, and the condition Stalled says it.
A second line ``# setup: <name> (…)`` names what the node must be like first; without one any node of ``hack/up`` does.
Of several documents the last one is meant; the others come before it.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "bad"
NAMESPACE = "namespace: default"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadManifest:
    """One file. ``reason`` is ``None`` when the API server refuses; ``setup`` is ``None`` when any node will do."""

    name: str
    documents: tuple[str, ...]
    reason: str | None
    fragment: str
    setup: str | None

    @property
    def refused(self) -> bool:
        return self.reason is None

    def in_namespace(self, namespace: str) -> tuple[str, ...]:
        """The documents as they would stand in another namespace."""
        return tuple(text.replace(NAMESPACE, f"namespace: {namespace}") for text in self.documents)


def load_bad_manifest(path: Path) -> BadManifest:
    """The manifest of one file.

    Raises:
        ValueError: its first line is of no known form.
    """
    text = path.read_text()
    first, second = text.splitlines()[:2]
    kind, _, rest = first.removeprefix("# ").partition(": ")
    reason, _, fragment = rest.partition(": ") if kind == "stalled" else (None, "", rest)
    if kind not in ("refused", "stalled") or not fragment:
        raise ValueError(f"{path.name}: the first line must say '# refused: …' or '# stalled: Reason: …': {first}")
    setup = second.removeprefix("# setup: ").split()[0] if second.startswith("# setup: ") else None
    return BadManifest(
        name=path.stem, documents=tuple(text.split("---\n")), reason=reason, fragment=fragment, setup=setup
    )


def bad_manifests() -> tuple[BadManifest, ...]:
    """All of them, by name."""
    return tuple(load_bad_manifest(path) for path in sorted(FOLDER.glob("*.yaml")))
