"""Seconds since the epoch to and from the RFC 3339 text of the API. Pure."""

from datetime import UTC, datetime


def rfc3339(at: float) -> str:
    """``at`` (seconds since the epoch) as ``2026-01-02T03:04:05Z``, whole seconds."""
    return datetime.fromtimestamp(int(at), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 text.

    Raises:
        ValueError: it is none.
    """
    return datetime.fromisoformat(text).timestamp()
