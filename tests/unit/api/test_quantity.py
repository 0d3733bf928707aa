"""Quantities: exact, in Kubernetes' grammar, never rounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlet.api.quantity import MAX_BYTES, Bounds, format_bytes, parse_quantity

MEANINGS = {
    "0": 0,
    "1": 1,
    "1k": 1000,
    "1Ki": 1024,
    "512Mi": 512 * 1024**2,
    "1.5Gi": 1536 * 1024**2,
    ".5Ki": 512,
    "1.": 1,
    "2G": 2 * 1000**3,
    "1Ti": 1024**4,
    "1P": 1000**5,
    "7Ei": 7 * 1024**6,
    "1000m": 1,
    "1e3": 1000,
    "1E3": 1000,
    "1e+3": 1000,
    "5000e-3": 5,
    "1E": 1000**6,
}


@pytest.mark.parametrize(("text", "count"), MEANINGS.items())
def test_a_quantity_means_what_kubernetes_says(text: str, count: int) -> None:
    assert parse_quantity(text) == count


@pytest.mark.parametrize(
    "text", ["", " ", "Gi", "1gi", "1 Gi", "1Gi ", "1Gi\n", "-1", "+1", "1KiB", "0x10", "1e", "ten", "1,5", "١"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity of bytes"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["0.5", "1m", "1e-1", "1.0001Ki"])
def test_a_fraction_of_a_byte_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_quantity(text)


@pytest.mark.parametrize("text", ["8Ei", "10E", "1e99", "9223372036854775808"])
def test_more_than_63_bits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than"):
        parse_quantity(text)


def test_a_text_without_end_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity("9" * 1_000_000)


@given(st.integers(0, MAX_BYTES))
def test_the_canonical_form_means_the_same_number(count: int) -> None:
    assert parse_quantity(format_bytes(count)) == count


@given(st.integers(0, MAX_BYTES))
def test_the_canonical_form_cannot_be_shorter_in_a_larger_unit(count: int) -> None:
    text = format_bytes(count)

    assert not text.endswith("i") or int(text[:-2]) % 1024 != 0 or text.endswith("Ei")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (512, "512"), (1000, "1000"), (1024, "1Ki"), (536870912, "512Mi"), (1 << 40, "1Ti")]
)
def test_the_canonical_form_is_what_kubectl_would_show(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize("text", ["1Mi", "1024Ki", "2Mi", "2048000"])
def test_bounds_are_included(text: str) -> None:
    assert Bounds(what="it", low="1Mi", high="2Mi", step_bytes=512).check(text) == text


@pytest.mark.parametrize("text", ["1023Ki", "3Mi", "1048577"])
def test_what_is_out_of_bounds_is_refused_with_the_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="it must be a multiple of 512 bytes between 1Mi and 2Mi"):
        Bounds(what="it", low="1Mi", high="2Mi", step_bytes=512).check(text)
