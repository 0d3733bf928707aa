"""The audit log as values."""

import json
from pathlib import Path

from sandbox.audit import read_audit_log, service_account_user


def event(audit_id: str, verb: str, *, user: str = "me", decision: str = "allow", **target: str) -> str:
    return json.dumps(
        {
            "auditID": audit_id,
            "verb": verb,
            "user": {"username": user},
            "objectRef": target,
            "responseStatus": {"code": 200},
            "annotations": {"authorization.k8s.io/decision": decision},
        }
    )


def test_a_request_is_read_with_the_right_that_it_needs(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(event("1", "patch", apiGroup="g", resource="guests", subresource="status") + "\n")
    [request] = read_audit_log(log)
    assert request.right == ("g", "guests/status", "patch")
    assert (request.is_write, request.allowed, request.code) == (True, True, 200)


def test_both_lines_of_a_watch_are_one_request(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(2 * (event("1", "watch", resource="nodes") + "\n"))
    assert [request.verb for request in read_audit_log(log)] == ["watch"]


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(event("1", "get", resource="nodes") + "\n" + event("2", "get", resource="nodes")[:40])
    assert [request.audit_id for request in read_audit_log(log)] == ["1"]


def test_requests_for_no_resource_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(event("1", "get") + "\n")
    assert read_audit_log(log) == ()


def test_one_users_requests_can_be_picked(tmp_path: Path) -> None:
    agent = service_account_user("guestlet-system", "agent")
    log = tmp_path / "audit.log"
    lines = [event("1", "get", resource="nodes"), event("2", "get", user=agent, decision="forbid", resource="nodes")]
    log.write_text("".join(line + "\n" for line in lines))
    [request] = read_audit_log(log, user=agent)
    assert (request.audit_id, request.allowed) == ("2", False)


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert read_audit_log(tmp_path / "audit.log") == ()
