from pathlib import Path

import pytest

from guestlet.errors import Refused
from guestlet.host.firmware import Firmware


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("OVMF_CODE_4M.fd", "OVMF_CODE_4M.secboot.fd", "OVMF_CODE_4M.ms.fd", "OVMF_CODE_LONELY.fd"):
        (tmp_path / name).write_text(name)
    for name in ("OVMF_VARS_4M.fd", "OVMF_VARS_4M.ms.fd"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_the_default_is_the_large_one_without_secure_boot(directory: Path) -> None:
    assert Firmware((directory,)).default() == "OVMF_CODE_4M.fd"
    assert Firmware((directory / "nothing",)).default() is None


@pytest.mark.parametrize("name", ["OVMF_CODE_LONELY.fd", "OVMF_VARS_4M.fd", "nothing.fd", "../OVMF_CODE_4M.fd", ""])
def test_what_has_no_variables_or_is_no_code_image_is_not_firmware(directory: Path, name: str) -> None:
    assert Firmware((directory,)).code(name) is None


@pytest.mark.parametrize(
    ("code", "variables"),
    [
        ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
        ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.fd"),
        ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"),
    ],
)
def test_a_guest_gets_the_variables_that_belong_to_its_code(directory: Path, code: str, variables: str) -> None:
    Firmware((directory,)).give_variables(code, directory / "nvram.fd", user=None)

    assert (directory / "nvram.fd").read_text() == variables


def test_variables_that_a_guest_has_are_kept(directory: Path) -> None:
    (directory / "nvram.fd").write_text("the guest's own")

    Firmware((directory,)).give_variables("OVMF_CODE_4M.fd", directory / "nvram.fd", user=None)

    assert (directory / "nvram.fd").read_text() == "the guest's own"


def test_a_node_without_the_firmware_says_what_to_install(directory: Path) -> None:
    with pytest.raises(Refused, match=r"FirmwareMissing: .*install ovmf"):
        Firmware((directory,)).give_variables("OVMF_CODE.fd", directory / "nvram.fd", user=None)
