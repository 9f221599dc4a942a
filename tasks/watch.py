"""Watching a load for its stop objectives, by the heartbeats of the phase and of the whole run."""

from __future__ import annotations

from collections.abc import Sequence

from scenarios.model import Scenario
from scenarios.objectives import Objective
from tasks.readings import Reading, Readings
from tasks.stop_rule import Judged, missed

KEEP_S = 60.0


class LoadWatch:
    """Holds the readings that the stop objectives of a run are about.

    Of a phase whose load goes up in steps nothing is judged here: its steps are, one by one.
    """

    def __init__(self, scenario: Scenario, *, has_metrics: bool) -> None:
        self._objectives = [
            objective
            for objective in scenario.parsed_objectives
            if objective.stop and (has_metrics or not objective.metric.startswith("relay."))
        ]
        self._keep_s = KEEP_S + max((one.window_s or 0.0 for one in self._objectives), default=0.0)
        self._run = Readings(self._keep_s)
        self._phase = Readings(self._keep_s)
        self._name = ""
        self._judges = True

    def phase_begins(self, name: str, *, judges: bool = True, lasts_s: float = 0.0) -> None:
        """Take that from now on readings are of a phase, or of a step of one.

        Those of the last `lasts_s` at least are kept.
        """
        self._name, self._judges = name, judges
        self._phase = Readings(self._keep_s + lasts_s)

    def take(self, reading: Reading) -> None:
        """Take the next reading."""
        self._run.add(reading)
        self._phase.add(reading)

    def missed(self, now_us: int) -> Judged | None:
        """Return the first stop objective that is missed by now, if there is one."""
        if not self._judges:
            return None
        return missed(self._of(None), list(self._run), now_us=now_us) or missed(
            self._of(self._name), list(self._phase), now_us=now_us
        )

    @property
    def readings(self) -> Sequence[Reading]:
        """The readings since the phase or step began."""
        return list(self._phase)

    def _of(self, phase: str | None) -> list[Objective]:
        return [objective for objective in self._objectives if objective.phase == phase]
