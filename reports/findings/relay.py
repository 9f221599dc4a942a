"""What the relay itself shows: silence and restarts."""

from __future__ import annotations

from reports.findings.causes import busy_worker, is_restart, window_text
from reports.findings.finding import Cause, Evidence, Finding, Severity
from reports.findings.signals import Signals, inside
from reports.findings.stretches import Stretch, merged, stretches_of
from reports.findings.wording import clock, count_text, seconds_text

_SILENT_S = 3
_SILENT_LONG_S = 10


def relay_findings(signals: Signals) -> list[Finding]:
    """Return what the relay's own `/metrics` shows, if it publishes any."""
    if not signals.database.facts.record.has_metrics:
        return []
    return [*_silences(signals), *_restarts(signals)]


def _silences(signals: Signals) -> list[Finding]:
    polled = sorted(t for t, s in signals.seconds.items() if s.polls)
    silent = merged(
        stretches_of(polled, lambda t: signals.seconds[t].polls_failed == signals.seconds[t].polls),
        gap_s=1,
    )
    found = []
    for stretch in silent:
        within = inside(list(signals.seconds.values()), stretch)
        failed = sum(s.polls_failed for s in within)
        if failed < _SILENT_S:
            continue
        completed, made = sum(s.completed for s in within), sum(s.made for s in within)
        busy = busy_worker(signals, stretch)
        cause: Cause = "relay"
        if busy:
            why = f"while {busy[1]}: the generator may have been too busy to ask"
            cause = "generator"
        elif made and completed >= 0.5 * made:
            why = "though it went on to acknowledge edits: its /metrics only"
        elif made:
            why = "and it acknowledged few or no edits then: the relay, or the network before it"
        else:
            why = "and no edits were made then to tell whether it worked: the relay, or the network"
        severity: Severity = "critical" if stretch.length_s >= _SILENT_LONG_S else "warning"
        found.append(
            Finding(
                kind="relay_silent",
                severity=severity,
                phase=signals.phase_at(stretch.from_s),
                started_us=signals.us(stretch.from_s),
                ended_us=signals.us(stretch.to_s),
                evidence={
                    "polls_failed": float(failed),
                    "error": _poll_error(signals, stretch),
                    "edits_acknowledged": float(completed),
                    "edits_made": float(made),
                },
                sentence=(
                    f"The relay's /metrics failed {count_text(failed, 'time')} "
                    f"{window_text(signals, stretch)} ({_poll_error(signals, stretch)}), {why}."
                ),
                cause=cause,
            )
        )
    return found


def _poll_error(signals: Signals, stretch: Stretch) -> str:
    errors = [
        str(row["error"])
        for row in signals.rows("relay_polls")
        if row["error"] and stretch.from_s <= row["at_s"] < stretch.to_s
    ]
    return max(set(errors), key=errors.count)[:120] if errors else "no answer"


def _restarts(signals: Signals) -> list[Finding]:
    found = []
    for row in signals.rows("relay_polls"):
        if not is_restart(row):
            continue
        at_s = row["at_s"]
        # It ended after its last answer, and its successor began before its first.
        before_s = row["at_before_s"] if row["at_before_s"] is not None else at_s - 1
        stretch = Stretch(max(before_s, 0.0), at_s)
        near = [s for t, s in signals.seconds.items() if stretch.from_s - 5 <= t <= at_s + 5]
        drops = sum(s.drops for s in near)
        evidence: Evidence = {"connections_dropped": float(drops)}
        for name in ("pid", "pid_before", "uptime_s", "uptime_before_s"):
            if row[name] is not None:
                evidence[name] = float(row[name])
        how = (
            f"its pid went from {row['pid_before']} to {row['pid']}"
            if row["pid"] != row["pid_before"]
            else f"its uptime went back from {seconds_text(row['uptime_before_s'])} to "
            f"{row['uptime_s']:.0f} s"
        )
        memory = _memory_before(signals, stretch.from_s)
        last = f" its memory had been {memory:.0f} MB," if memory is not None else ""
        if memory is not None:
            evidence["memory_before_mb"] = memory
        found.append(
            Finding(
                kind="relay_restarted",
                severity="critical",
                phase=signals.phase_at(stretch.from_s),
                started_us=signals.us(stretch.from_s),
                ended_us=signals.us(stretch.to_s),
                evidence=evidence,
                sentence=(
                    f"The relay was restarted at {clock(signals.us(stretch.from_s))} ({how});"
                    f"{last} and {count_text(drops, 'connection')} dropped around then: the relay."
                ),
                cause="relay",
            )
        )
    return found


def _memory_before(signals: Signals, at_s: float) -> float | None:
    known = [
        s.relay_memory_mb
        for t, s in sorted(signals.seconds.items())
        if s.relay_memory_mb is not None and at_s - 30 <= t < at_s
    ]
    return known[-1] if known else None
