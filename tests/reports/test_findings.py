from __future__ import annotations

import pytest

from benchmarks.findings import is_right
from benchmarks.synthetic_anomalies import Anomaly, inject, place
from benchmarks.synthetic_store import open_in_memory
from benchmarks.synthetic_world import NOISES, World, draw_world
from reports.findings import find
from reports.findings.finding import KINDS, Finding, Kind
from reports.findings.robust import chance_of, theil_sen
from reports.findings.stretches import Stretch, merged

SEED = 20_261


def quiet_world(seed: int = SEED, noise: str = "gaussian") -> World:
    return draw_world(seed, noise=noise, workers=3, sustained_s=150, edits_per_s=5)


def findings_of(world: World) -> list[Finding]:
    with open_in_memory(world) as database:
        return find(database)


def only(found: list[Finding], kind: Kind) -> Finding:
    (finding,) = [finding for finding in found if finding.kind == kind]
    return finding


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_has_one_anomaly_shows_just_that_kind_in_its_window(kind: Kind) -> None:
    """Each kind at middle strength is found at its place and with its worker, and little else."""
    world = quiet_world()
    anomaly = place(world, kind, "middle", [])
    inject(world, anomaly)
    found = findings_of(world)
    assert any(is_right(finding, anomaly, world) for finding in found), found
    if kind != "relay_restarted":  # which drops connections, too
        assert {f.kind for f in found} <= {kind, "latency_spike"}, [f.sentence for f in found]


@pytest.mark.parametrize("noise", NOISES)
def test_a_clean_run_shows_nothing_above_a_note(noise: str) -> None:
    """Noise of any shape alone is nothing that a reader should act on."""
    found = findings_of(quiet_world(noise=noise))
    assert [finding.sentence for finding in found if finding.severity != "note"] == []


def test_a_latency_spike_under_a_busy_worker_is_the_generators() -> None:
    """Where a worker's CPU was full while latency rose, the sentence says so."""
    world = quiet_world()
    window = slice(110, 130)
    world.level[window] += 1.4
    world.cpu_percent[1, window] = 97
    world.lag_ms[1, window] = 400
    spike = only(findings_of(world), "latency_spike")
    assert spike.cause == "generator"
    assert spike.worker == "worker-2"
    assert "worker-2's CPU was at 97 %" in spike.sentence
    assert spike.sentence.endswith("the generator, not the relay.")
    assert "relay memory was flat" in spike.sentence


def test_a_latency_spike_with_a_slow_metrics_answer_is_the_relays() -> None:
    """Where the relay itself became slow to answer and no worker was late, it is the relay."""
    world = quiet_world()
    window = slice(110, 130)
    world.level[window] += 1.4
    world.relay_response_ms[window] = 300
    spike = only(findings_of(world), "latency_spike")
    assert spike.cause == "relay"
    assert spike.worker is None
    assert "/metrics took" in spike.sentence


def test_a_latency_spike_on_one_worker_alone_is_that_workers_way() -> None:
    """Where one calm worker alone saw latency rise, the sentence names its way to the relay."""
    world = quiet_world()
    world.worker_level[2, 100:140] += 1.6
    spike = only(findings_of(world), "latency_spike")
    assert (spike.cause, spike.worker) == ("network", "worker-3")
    assert "on worker-3 alone" in spike.sentence


def test_memory_that_stops_with_the_edits_is_said_to_be_the_edits() -> None:
    """A relay whose memory grows only while edits are made keeps something for each edit."""
    world = quiet_world()
    inject(world, place(world, "memory_leak", "middle", []))
    leak = only(findings_of(world), "memory_leak")
    assert leak.cause == "relay"
    assert "it stopped when the edits stopped" in leak.sentence
    low, high = leak.evidence["slope_low_mb_per_hour"], leak.evidence["slope_high_mb_per_hour"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert 0 < low < float(leak.evidence["slope_mb_per_hour"]) < high


def test_silence_of_the_metrics_alone_is_told_from_a_silent_relay() -> None:
    """A relay that goes on acknowledging while its /metrics fails is said to do so."""
    world = quiet_world()
    inject(world, Anomaly("relay_silent", "middle", 110, 122))
    silence = only(findings_of(world), "relay_silent")
    assert silence.severity == "critical"
    assert "its /metrics only" in silence.sentence


def test_a_slope_through_noise_has_zero_in_its_interval() -> None:
    """The interval of a trend says when there is none."""
    noise = [0.3, -0.2, 0.1, -0.4, 0.2, 0.0, -0.1, 0.4, -0.3, 0.1, 0.2, -0.2]
    xs = [float(x) for x in range(len(noise))]
    flat = theil_sen(xs, noise)
    assert flat.low < 0 < flat.high
    steep = theil_sen(xs, [2 * x + y for x, y in zip(xs, noise, strict=True)])
    assert steep.slope == pytest.approx(2, abs=0.1)
    assert steep.low > 1.8


def test_neighbouring_windows_become_one() -> None:
    """Windows within the gap are one finding; those further apart are two."""
    found = merged([Stretch(5, 6), Stretch(0, 2), Stretch(3, 4)], gap_s=1)
    assert found == [Stretch(0, 6)]
    assert len(merged([Stretch(0, 2), Stretch(4, 5)], gap_s=1)) == 2


def test_a_count_near_what_is_usual_is_no_surprise() -> None:
    """Few of few are never improbable; many where none are expected are."""
    assert chance_of(2, 3) == 1.0
    assert chance_of(12, 1) < 1e-7
