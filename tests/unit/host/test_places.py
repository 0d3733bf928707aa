import os
from pathlib import Path

import pytest

from contracts.host.nodes import short_directory
from guestlet.errors import Refused
from guestlet.host.access import QemuUser, require_passage
from guestlet.host.places import Places


def test_directories_let_qemu_through_and_show_nothing() -> None:
    with short_directory() as made:
        Places(state_dir=made / "state", runtime_dir=made / "run").make()

        modes = {each.stat().st_mode & 0o777 for each in (made / "state", made / "state" / "guests", made / "run")}
        assert modes == {0o711}


def test_a_runtime_directory_too_long_for_sockets_is_refused_with_the_limit(tmp_path: Path) -> None:
    places = Places(state_dir=tmp_path, runtime_dir=Path("/" + "r" * 61))

    with pytest.raises(Refused, match=r"RuntimeDirTooLong: .* at most 61 bytes"):
        places.make()


@pytest.mark.parametrize("key", ["", "..", ".x", "a/b", "a\0b"])
def test_a_guests_key_leads_nowhere_else(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="is not a guest's key"):
        Places(state_dir=tmp_path, runtime_dir=tmp_path).of(key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes directories of others")
def test_a_closed_directory_on_the_way_is_named(tmp_path: Path) -> None:
    user = QemuUser(uid=64055, gid=64055)
    tmp_path.chmod(0o700)
    (tmp_path / "pool").mkdir(mode=0o711)

    with pytest.raises(Refused, match=r"QEMU's uid 64055 cannot enter /.* \(mode 0700"):
        require_passage(tmp_path / "pool", user)
    require_passage(tmp_path / "pool", None)
    require_passage(Path("/usr/bin"), user)
