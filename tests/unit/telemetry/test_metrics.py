from guestlet.telemetry.metrics import AgentMetrics, Metrics


def lines(metrics: Metrics) -> set[str]:
    return set(metrics.text().decode().splitlines())


def test_guests_are_counted_by_phase() -> None:
    metrics = AgentMetrics()
    metrics.phase("default/a", "Running")
    metrics.phase("default/b", "Running")
    metrics.phase("default/c", "Failed")
    assert 'guestlet_guests{phase="Running"} 2.0' in lines(metrics)
    metrics.phase("default/a", "Stopped")
    metrics.phase("default/c", None)
    found = lines(metrics)
    assert 'guestlet_guests{phase="Running"} 1.0' in found
    assert not any("Failed" in line for line in found)


def test_a_launch_is_an_action_and_a_start() -> None:
    metrics = AgentMetrics()
    metrics.action("Launch", "Done")
    metrics.action("Launch", "QemuExited")
    metrics.action("Resume", "Done")
    found = lines(metrics)
    assert 'guestlet_qemu_starts_total{outcome="Done"} 1.0' in found
    assert 'guestlet_qemu_starts_total{outcome="QemuExited"} 1.0' in found
    assert 'guestlet_actions_total{kind="Resume",outcome="Done"} 1.0' in found


def test_turns_commands_requests_and_the_queue_are_published() -> None:
    metrics = AgentMetrics()
    metrics.turn("Done", 0.02)
    metrics.command("query-status", 0.0004)
    metrics.request("patch", "virtualguests/status", "200")
    metrics.queue(depth=3, waiting=7)
    metrics.orphans(1)
    metrics.lease(held=True)
    found = lines(metrics)
    assert 'guestlet_reconcile_duration_seconds_count{result="Done"} 1.0' in found
    assert 'guestlet_qmp_command_duration_seconds_bucket{command="query-status",le="0.0005"} 1.0' in found
    assert 'guestlet_api_requests_total{code="200",resource="virtualguests/status",verb="patch"} 1.0' in found
    assert {"guestlet_queue_depth 3.0", "guestlet_queue_waiting 7.0", "guestlet_orphans 1.0"} <= found
    assert "guestlet_lease_held 1.0" in found


def test_the_process_itself_is_measured() -> None:
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines(Metrics("controller")))


def test_two_programs_in_one_process_do_not_share_numbers() -> None:
    one, two = AgentMetrics(), AgentMetrics()
    one.action("Kill", "Done")
    assert not any("Kill" in line for line in lines(two))
