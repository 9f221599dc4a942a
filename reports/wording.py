"""How the page writes figures: numbers with units, times, sizes."""

from __future__ import annotations

from datetime import UTC, datetime

NONE = "\u2013"
_THIN = "\u202f"
_MINUTE_S = 60
_HOUR_S = 3600


def number(value: float | None, unit: str = "") -> str:
    """Return a number with as many digits as say something, and its unit; a dash for None."""
    if value is None:
        return NONE
    size = abs(value)
    if size == 0 or size >= 100 or value == int(value):  # noqa: PLR2004 - digits, as follows
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.{1 if size >= 10 else 2 if size >= 1 else 3}f}"  # noqa: PLR2004
    return f"{text}{_THIN}{unit}" if unit else text


def share(value: float | None) -> str:
    """Return a share of 1 as percent; a small one that is not zero never reads as zero."""
    if value is None:
        return NONE
    if 0 < value < 0.0001:  # noqa: PLR2004 - below a hundredth of a percent
        return f"<{_THIN}0.01{_THIN}%"
    return f"{value * 100:.4g}{_THIN}%"


def in_unit(value: float | None, unit: str) -> str:
    """Return a figure in its unit; a `share` of 1 as percent."""
    return share(value) if unit == "share" else number(value, unit)


def run_time(seconds: float | None) -> str:
    """Return run time as `mm:ss` or `h:mm:ss`."""
    if seconds is None:
        return NONE
    whole = round(abs(seconds))
    sign = "−" if seconds < 0 and whole else ""  # noqa: RUF001 - a minus sign is meant
    hours, minutes, rest = whole // _HOUR_S, whole % _HOUR_S // _MINUTE_S, whole % _MINUTE_S
    short = f"{minutes:02d}:{rest:02d}"
    return f"{sign}{hours}:{short}" if hours else f"{sign}{short}"


def clock_time(at_us: float | None) -> str:
    """Return clock time of an instant in microseconds since the epoch, `hh:mm:ss` in UTC."""
    return NONE if at_us is None else f"{datetime.fromtimestamp(at_us / 1e6, UTC):%H:%M:%S}"


def date_time(iso: str | None) -> str:
    """Return an ISO time as people read it, in UTC."""
    if not iso:
        return NONE
    return f"{datetime.fromisoformat(iso).astimezone(UTC):%d %B %Y, %H:%M:%S} UTC".lstrip("0")


def dollars(value: float | None) -> str:
    """Return US dollars and cents."""
    return NONE if value is None else f"${value:,.2f}"


def figure(metric: str, value: float | None) -> str:
    """Return the value of an objective's metric in that metric's own unit."""
    if value is None:
        return "not measured"
    if metric.endswith("error_rate"):
        return share(value)
    if metric.endswith("health_score"):
        return number(value, "%")
    head = metric.split(".", maxsplit=1)[0]
    for place, suffix, unit in (
        (head, "_ms", "ms"),
        (metric, "_mb", "MiB"),
        (metric, "_s", "s"),
        (metric, "per_second", "edits/s"),
    ):
        if place.endswith(suffix):
            return number(value, unit)
    return number(value)


def plural(count: float, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 worker`, `3 workers`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def toml(value: object, name: str = "") -> str:
    """Return nested settings as TOML reads, tables last; for people, not to be parsed again."""
    if not isinstance(value, dict):
        return f"{name} = {_literal(value)}"
    lines: list[str] = []
    tables: list[str] = []
    for key, entry in value.items():
        path = f"{name}.{key}" if name else str(key)
        if entry is None or entry in ("", [], {}):
            continue
        if isinstance(entry, dict):
            tables.append(f"\n[{path}]\n{toml(entry, path)}")
        elif isinstance(entry, list) and all(isinstance(item, dict) for item in entry):
            tables += [f"\n[[{path}]]\n{toml(item, path)}" for item in entry]
        else:
            lines.append(f"{key} = {_literal(entry)}")
    return "\n".join([*lines, *tables])


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return str(value)


def replaced_text(by: str, phase: str) -> str:
    """Return who took a lost worker's place: `replaced by worker-3 from 02-sustained on`."""
    return f"replaced by {by} from {phase} on" if by else ""
