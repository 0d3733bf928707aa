"""The one error of the sandbox: what went wrong on this machine, in words for the person at the terminal.

It must never be caught to go on as if nothing had happened: a sandbox is whole or it says why not.
"""


class SandboxError(Exception):
    """A part of the sandbox could not be found, built, started or stopped."""
