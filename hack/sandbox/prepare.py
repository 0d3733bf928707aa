"""Everything that tests need from outside this checkout: found, else installed or built; immediate when it is there.

It must never start anything.
"""

import shutil
import sys

import click

from sandbox.assets import find_or_build
from sandbox.debian import install_packages
from sandbox.errors import SandboxError
from sandbox.qemu import ensure_qemu, ensure_system_qemu, read_version
from sandbox.steps import Steps
from sandbox.test_guest import ensure_test_guest


@click.command()
@click.argument("majors", nargs=-1, type=int)
def main(majors: tuple[int, ...]) -> None:
    """Prepares the system's QEMU, further MAJORS of it, the test guest and the control plane's programs."""
    steps = Steps()
    try:
        with steps.step("system tools"):
            if shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
                install_packages(("iproute2",), steps.say)
        with steps.step("the system's QEMU"):
            steps.say(".".join(map(str, read_version(ensure_system_qemu(steps.say)))))
        for major in majors:
            with steps.step(f"QEMU {major}"):
                ensure_qemu(major, steps.say)
        with steps.step("test guest"):
            ensure_test_guest(steps.say)
        with steps.step("control plane"):
            find_or_build(say=steps.say)
    except SandboxError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
