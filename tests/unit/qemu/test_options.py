"""No value of an option can become another option."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlet.errors import Broken
from guestlet.qemu.options import json_option, key_values, word


def qemu_reads(option: str) -> dict[str, str]:
    """QEMU's own reading of ``key=value,…`` (util/keyval.c): a comma ends a value unless it is doubled."""
    pairs = option.replace(",,", "\0").split(",")
    return {key: value.replace("\0", ",") for key, _, value in (pair.partition("=") for pair in pairs)}


@given(st.text(alphabet="ab,=:{}\"' \\", max_size=20))
def test_a_value_of_the_old_syntax_comes_back_as_it_was(text: str) -> None:
    option = key_values(path=f"x{text}x", server=True)

    assert qemu_reads(option) == {"path": f"x{text}x", "server": "on"}


@given(st.text(max_size=20))
def test_a_value_of_json_comes_back_as_it_was(text: str) -> None:
    assert json.loads(json_option({"filename": text, "cache": {"direct": True}, "list": ({"str": text},)})) == {
        "filename": text,
        "cache": {"direct": True},
        "list": [{"str": text}],
    }


def test_keys_are_written_with_dashes_and_nothing_is_left_out_but_none() -> None:
    assert key_values("tcg", tb_size=64, thread=None, wait=False) == "tcg,tb-size=64,wait=off"


@pytest.mark.parametrize("text", ["qemu64,+svm", "host,migratable=off", "", "-machine", "a b", "a=b"])
def test_where_no_escape_exists_only_names_are_written(text: str) -> None:
    with pytest.raises(Broken, match="is not a name"):
        word(text)


@pytest.mark.parametrize("text", ["pc-q35-7.2", "Skylake-Server-v4", "host", "EPYC-Milan-v2"])
def test_names_of_qemu_are_written_as_they_are(text: str) -> None:
    assert word(text) == text
