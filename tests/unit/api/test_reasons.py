"""Conditions' words are stable, distinct and explained."""

import re

from guestlet.api.reasons import ConditionType, Reason


def test_reasons_are_camel_case_and_explained() -> None:
    for word in (*ConditionType, *Reason):
        assert re.fullmatch(r"[A-Z][A-Za-z]{2,40}", word)
        assert re.fullmatch(r"\S.+\.", word.description), word


def test_a_reason_is_text_and_is_found_by_it() -> None:
    assert f"{Reason.RUNNING}" == "Running"
    assert Reason("Running") is Reason.RUNNING


def test_the_conditions_are_those_of_the_design() -> None:
    assert set(ConditionType) == {"Ready", "Reconciling", "Stalled", "Paused", "RestartRequired", "SoftwareEmulation"}
