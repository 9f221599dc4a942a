"""The errors of the whole project, with one base.

RelayLoadError                what happened, where, and what the user can do
├── UsageError                exit 2: a command, parameter or scenario that cannot be meant
│   └── ScenarioError         a scenario file, an override or an objective
├── CannotRunError            exit 1: something that the run needs is not there
│   ├── StoreError            the bucket is missing, refused us, or does not answer
│   │   └── NoSuchRunError    no run of that id in this store
│   ├── RelayError            the relay is unreachable or is no relay
│   ├── BrowserError          no Chromium, or it does not start
│   ├── FleetError            workers could not be had, reached or given back
│   └── DeadlineError         a step did not finish in the time that it was given
├── ObjectivesMissedError     exit 3: the relay did not meet the scenario's objectives
├── CapacityRegressedError    exit 3: the relay holds less than it did
├── InvalidRunError           exit 4: the run's figures cannot be believed
└── InterruptedRunError       exit 130: ended by the user before its time
"""

from __future__ import annotations

from typing import ClassVar


class RelayLoadError(Exception):
    """Base of every error that this project raises on purpose.

    `message` is one or two sentences: what happened and where. `hint` says what the user
    can do about it. `exit_code` is what the command line ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Prefect pickles exceptions between processes; keyword-only fields need telling.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[RelayLoadError], message: str, hint: str) -> RelayLoadError:
    return kind(message, hint=hint)


class UsageError(RelayLoadError):
    """A command, option or parameter that cannot be meant."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario file, an override or an objective that is not valid."""


class CannotRunError(RelayLoadError):
    """Something that the run needs is not there."""


class StoreError(CannotRunError):
    """The bucket is missing, refuses our credentials, or does not answer."""


class NoSuchRunError(StoreError):
    """The store holds no run of the given id."""


class RelayError(CannotRunError):
    """The relay cannot be reached, or what answers is no relay."""


class BrowserError(CannotRunError):
    """No Chromium was found, or it does not start."""


class FleetError(CannotRunError):
    """Workers could not be had, reached, or given back."""


class DeadlineError(CannotRunError):
    """A step did not finish in the time that it was given."""


class ObjectivesMissedError(RelayLoadError):
    """The run can be believed, and the relay did not meet its objectives."""

    exit_code = 3


class CapacityRegressedError(RelayLoadError):
    """The relay's capacity lies below that of the runs before by more than is allowed."""

    exit_code = 3


class InvalidRunError(RelayLoadError):
    """The run's figures cannot be believed."""

    exit_code = 4


class InterruptedRunError(RelayLoadError):
    """The run was ended by its user before its time."""

    exit_code = 130
