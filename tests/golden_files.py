"""Golden files: what a text must be, kept beside the tests; a missing one fails, ``--regenerate-golden`` rewrites."""

from pathlib import Path

GOLDEN = Path(__file__).resolve().parent / "golden"


def check_golden(path: Path, text: str, regenerate: bool) -> None:
    """``text`` is what the file holds; with ``regenerate`` the file is written instead."""
    if regenerate:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return
    assert path.is_file(), f"{path} is missing: look at what it would be with --regenerate-golden, then commit it"
    assert text == path.read_text(), f"{path} differs: --regenerate-golden rewrites it"
