"""The numbers that the programs publish for Prometheus; names and labels are stable, see the README.

It must never be asked for a decision, and no label may hold an unbounded value such as a guest's name.
"""

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_TURN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_QMP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)


class Metrics:
    """One program's numbers in a registry of their own; ``program`` is agent or controller."""

    def __init__(self, program: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._turns = Histogram(
            "guestlet_reconcile_duration_seconds",
            "Seconds of a guest's turn, by result (Done, or the branch of its error).",
            ("result",),
            buckets=_TURN_S,
            registry=self.registry,
        )
        self._requests = Counter(
            "guestlet_api_requests",
            "Requests to the API server, by RBAC verb, resource and HTTP status (none: no answer).",
            ("verb", "resource", "code"),
            registry=self.registry,
        )
        self._depth = Gauge("guestlet_queue_depth", "Guests that are ready for a turn.", registry=self.registry)
        self._waiting = Gauge("guestlet_queue_waiting", "Guests that are due later.", registry=self.registry)
        info = Gauge("guestlet_info", "Which program this is.", ("program",), registry=self.registry)
        info.labels(program).set(1)

    def turn(self, result: str, seconds: float) -> None:
        """A turn ended."""
        self._turns.labels(result).observe(seconds)

    def request(self, verb: str, resource: str, code: str) -> None:
        """The API server was asked."""
        self._requests.labels(verb, resource, code).inc()

    def queue(self, *, depth: int, waiting: int) -> None:
        """The queue as it is now."""
        self._depth.set(depth)
        self._waiting.set(waiting)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)


class AgentMetrics(Metrics):
    """What an agent publishes besides; it is the guests' loop's journal."""

    def __init__(self) -> None:
        super().__init__("agent")
        self._phases: dict[str, str] = {}
        self._actions = Counter(
            "guestlet_actions",
            "Actions, by kind and outcome (Done, or the reason of the error).",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self._qmp = Histogram(
            "guestlet_qmp_command_duration_seconds",
            "Seconds until QEMU answered a command.",
            ("command",),
            buckets=_QMP_S,
            registry=self.registry,
        )
        self._guests = Gauge("guestlet_guests", "Guests of this node, by phase.", ("phase",), registry=self.registry)
        self._starts = Counter(
            "guestlet_qemu_starts", "QEMUs started, by outcome.", ("outcome",), registry=self.registry
        )
        self._orphans = Gauge("guestlet_orphans", "Guests that run here and have no object.", registry=self.registry)
        self._lease_held = Gauge(
            "guestlet_lease_held", "Whether the node's Lease names this agent.", registry=self.registry
        )

    def action(self, kind: str, outcome: str) -> None:
        """An action ended: ``Done`` or the reason of its error."""
        self._actions.labels(kind, outcome).inc()
        if kind == "Launch":
            self._starts.labels(outcome).inc()

    def phase(self, guest: str, phase: str | None) -> None:
        """The guest's phase now; ``None``: it is gone."""
        if phase is None:
            self._phases.pop(guest, None)
        else:
            self._phases[guest] = phase

    def orphans(self, count: int) -> None:
        """How many guests run here without an object."""
        self._orphans.set(count)

    def command(self, name: str, seconds: float) -> None:
        """QEMU answered a command."""
        self._qmp.labels(name).observe(seconds)

    def lease(self, *, held: bool) -> None:
        """Whether this agent may act."""
        self._lease_held.set(held)

    def text(self) -> bytes:
        """All numbers; phases are counted when asked for."""
        self._guests.clear()
        for phase, count in Tally(self._phases.values()).items():
            self._guests.labels(phase).set(count)
        return super().text()
