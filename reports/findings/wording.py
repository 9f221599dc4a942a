"""How figures and instants are written in the sentences of findings."""

from __future__ import annotations

from datetime import UTC, datetime

_SECOND_MS = 1000.0
_HOUR_S = 3600.0
_MINUTE_S = 60.0


def clock(at_us: int) -> str:
    """Return an instant's time of day in UTC, such as `12:03:10`."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%H:%M:%S")


def seconds_text(length_s: float) -> str:
    """Return a length of time, such as `20 s` or `12 min`."""
    if length_s >= 2 * _HOUR_S:
        return f"{length_s / _HOUR_S:.1f} h"
    if length_s >= 2 * _MINUTE_S:
        return f"{length_s / _MINUTE_S:.0f} min"
    return f"{max(length_s, 1):.0f} s"


def ms_text(value_ms: float) -> str:
    """Return a latency with three digits at most, such as `0.21 s` or `34 ms`."""
    if abs(value_ms) >= 100 * _SECOND_MS:
        return seconds_text(value_ms / _SECOND_MS)
    if abs(value_ms) >= 100:  # noqa: PLR2004 - from here on, seconds read better
        return f"{value_ms / _SECOND_MS:.2g} s"
    return f"{value_ms:.2g} ms"


def times_text(ratio: float) -> str:
    """Return a factor, such as `4 x` or `1.6 x`."""
    return f"{ratio:.0f} x" if ratio >= 3 else f"{ratio:.1f} x"  # noqa: PLR2004


def count_text(count: float, noun: str) -> str:
    """Return a count with its noun, such as `1 edit` or `3,120 edits`."""
    return f"{count:,.0f} {noun}{'' if round(count) == 1 else 's'}"


def percent_text(share: float) -> str:
    """Return a share as a percentage."""
    percent = share * 100
    return f"{percent:.0f} %" if percent >= 1 or percent == 0 else f"{percent:.1f} %"


def listed(parts: list[str]) -> str:
    """Return parts as one phrase: `a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:  # noqa: PLR2004 - nothing to join
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
