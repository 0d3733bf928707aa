"""The one error tree: each branch answers "what should the caller do?".

    GuestletError
     ├── Refused   the user's input or the node's state cannot be had: a person must act   → Stalled=True
     ├── NotNow    nothing is wrong, only too early: try again later                       → Reconciling=True
     ├── Unknown   the effect may have happened: observe before doing anything else         → observe again
     └── Broken    a bug of ours or a defect of the host: logged with its cause             → Stalled=True, retried

This module never decides; it only names.
"""


class GuestletError(Exception):
    """An error with a stable CamelCase ``reason`` (used verbatim in conditions) and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Refused(GuestletError):
    """What was asked cannot be done as asked; the message names the field, the value and the remedy."""


class NotNow(GuestletError):
    """What was asked cannot be done yet; the same request may succeed later."""


class Unknown(GuestletError):
    """The outcome of an effect is not known (a deadline passed, a connection broke): observe first."""


class Broken(GuestletError):
    """A defect of the program or of the host."""
