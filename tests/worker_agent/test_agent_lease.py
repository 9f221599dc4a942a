from run_store.messages import Lease
from worker_agent.lease import FIRST_LEASE_S, LeaseWatch


class Clock:
    """A monotonic clock that goes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def lease(counter: int) -> Lease:
    return Lease(counter=counter, every_s=2, expires_after_s=30)


def watch() -> tuple[LeaseWatch, Clock]:
    clock = Clock()
    return LeaseWatch(clock), clock


def test_a_raised_counter_keeps_the_lease() -> None:
    """However long a run takes, a lease that is raised in time is not over."""
    lease_watch, clock = watch()
    for counter in range(1000):
        clock.now += 25
        lease_watch.seen(lease(counter))
        assert not lease_watch.is_over


def test_a_counter_that_stands_still_ends_the_lease() -> None:
    """The lease is over once the same counter was seen for longer than it says."""
    lease_watch, clock = watch()
    lease_watch.seen(lease(1))
    for _ in range(30):
        clock.now += 1
        lease_watch.seen(lease(1))
        assert not lease_watch.is_over
    clock.now += 1
    lease_watch.seen(lease(1))
    assert lease_watch.is_over


def test_time_in_which_the_store_is_silent_does_not_count() -> None:
    """Only what the store says can end a lease: hours of silence leave it where it was."""
    lease_watch, clock = watch()
    lease_watch.seen(lease(1))
    clock.now += 20
    lease_watch.seen(lease(1))
    for _ in range(1000):
        clock.now += 10
        lease_watch.store_silent()
    clock.now += 9
    lease_watch.seen(lease(1))
    assert not lease_watch.is_over
    clock.now += 2
    lease_watch.seen(lease(1))
    assert lease_watch.is_over


def test_a_counter_that_moved_meanwhile_begins_anew() -> None:
    """An agent that was stopped for minutes believes the first lease that it sees."""
    lease_watch, clock = watch()
    lease_watch.seen(lease(1))
    clock.now += 600
    lease_watch.seen(lease(2))
    assert not lease_watch.is_over


def test_a_lease_that_never_comes_is_awaited_for_a_while() -> None:
    """An agent without any lease ends by itself, later than the first could be late."""
    lease_watch, clock = watch()
    clock.now += FIRST_LEASE_S
    lease_watch.seen(None)
    assert not lease_watch.is_over
    clock.now += 1
    lease_watch.seen(None)
    assert lease_watch.is_over


def test_a_lease_that_vanishes_runs_out() -> None:
    """A deleted lease is one that is raised no more."""
    lease_watch, clock = watch()
    lease_watch.seen(lease(1))
    clock.now += 31
    lease_watch.seen(None)
    assert lease_watch.is_over
