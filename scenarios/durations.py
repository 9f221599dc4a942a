"""Durations as people write them: `20s`, `1m30s`, `1.5h`, or a plain number of seconds."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_duration_s(value: object) -> float:
    """Return seconds, zero or more.

    Raises ValueError with a sentence that says what a duration looks like.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(
            f"{value!r} is not a duration; write 20s, 1m30s, 2h or a number of seconds"
        )
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        text = value.strip().replace(" ", "")
        if _PART.sub("", text) == "" and text:
            seconds = sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(text))
        else:
            try:
                seconds = float(text)
            except ValueError:
                raise ValueError(
                    f"{value!r} is not a duration; write 20s, 1m30s, 2h or a number of seconds"
                ) from None
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"a duration is zero or more, not {value!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """Return seconds as people write them, to the second: `45s`, `1m 30s`, `1h 25m`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    parts.append(f"{rest}s" if rest or not (hours or minutes) else "")
    return " ".join(part for part in parts if part)
