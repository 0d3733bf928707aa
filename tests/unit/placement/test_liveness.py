from collections.abc import Iterable

from guestlet.kube.facts import LeaseFacts
from guestlet.placement.liveness import NEVER_LOOKED, LeaseWatch, Liveness, liveness, look

WALL = 1_700_000_000.0


class Cluster:
    """An agent's Lease, looked at every five seconds by clocks that need not agree with the agent's."""

    def __init__(self, *, skew_s: float = 0.0) -> None:
        self.now = 1000.0
        self.skew_s = skew_s
        self.renewed_at = WALL
        self.holder = "machine/state"
        self.watch: LeaseWatch = NEVER_LOOKED

    def look(self, *, there: bool = True) -> Liveness:
        lease = LeaseFacts(name="guestlet-agent-a", holder=self.holder, renewed_at=self.renewed_at + self.skew_s)
        leases: Iterable[LeaseFacts] = (lease, LeaseFacts(name="other", holder="x", renewed_at=0)) if there else ()
        wall = WALL + self.now - 1000.0
        self.watch = look(self.watch, leases, expected=("a",), now=self.now, wall=wall, stale_after_s=40)
        return self.state

    @property
    def state(self) -> Liveness:
        return liveness(self.watch, "a", now=self.now, stale_after_s=40)

    def run(self, seconds: float, *, renewing: bool, looking: bool = True, there: bool = True) -> Liveness:
        for _ in range(int(seconds // 5)):
            self.now += 5
            if renewing:
                self.renewed_at += 5
            if looking:
                self.look(there=there)
        return self.state


def test_an_agent_that_renews_is_live_from_the_first_look() -> None:
    cluster = Cluster()
    assert cluster.look() is Liveness.LIVE
    assert cluster.run(600, renewing=True) is Liveness.LIVE


def test_an_agent_is_silent_after_forty_seconds_and_not_before() -> None:
    cluster = Cluster()
    cluster.look()
    assert cluster.run(40, renewing=False) is Liveness.LIVE
    assert cluster.run(5, renewing=False) is Liveness.SILENT


def test_a_renewal_ends_the_silence() -> None:
    cluster = Cluster()
    cluster.look()
    cluster.run(100, renewing=False)
    assert cluster.run(5, renewing=True) is Liveness.LIVE


def test_an_old_lease_seen_for_the_first_time_is_doubted_before_it_is_believed() -> None:
    cluster = Cluster()
    cluster.renewed_at -= 500
    assert cluster.look() is Liveness.DOUBTFUL
    assert cluster.run(20, renewing=False) is Liveness.DOUBTFUL
    assert cluster.run(5, renewing=False) is Liveness.SILENT


def test_a_clock_that_is_an_hour_off_loses_no_node() -> None:
    for skew_s in (-3600.0, 3600.0):
        cluster = Cluster(skew_s=skew_s)
        assert cluster.look() is not Liveness.SILENT
        assert cluster.run(10, renewing=True) is Liveness.LIVE
        assert cluster.run(300, renewing=True) is Liveness.LIVE


def test_an_outage_of_the_api_server_loses_no_node() -> None:
    cluster = Cluster()
    cluster.look()
    cluster.run(600, renewing=False, looking=False)
    assert cluster.look() is Liveness.DOUBTFUL
    assert cluster.run(10, renewing=True) is Liveness.LIVE


def test_a_node_without_a_lease_is_doubted_and_then_silent() -> None:
    cluster = Cluster()
    assert cluster.state is Liveness.DOUBTFUL
    assert cluster.look(there=False) is Liveness.DOUBTFUL
    assert cluster.run(25, renewing=False, there=False) is Liveness.SILENT
    assert cluster.run(5, renewing=True) is Liveness.LIVE


def test_a_lease_that_vanishes_is_doubted_first() -> None:
    cluster = Cluster()
    cluster.look()
    assert cluster.run(5, renewing=False, there=False) is Liveness.DOUBTFUL
    assert cluster.run(25, renewing=False, there=False) is Liveness.SILENT
