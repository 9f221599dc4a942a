"""The scenario: connections, documents, edits, phases, objectives and the fleet it needs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from run_store.errors import ScenarioError
from scenarios.durations import format_duration, parse_duration_s
from scenarios.objectives import Objective, parse_objective

Duration = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    PlainSerializer(lambda seconds: f"{seconds:g}s", when_used="json"),
]
"""Seconds; a file may say `20s` or `1m30s`."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
PhaseKind = Literal["warmup", "ramp", "sustained", "stress", "storm", "cooldown"]
Isolation = Literal["shared", "page", "context"]
SOCKETS_PER_CONTEXT = 200
"""Chromium holds at most 255 WebSockets in one browser context; this leaves room to reconnect."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if (
            isinstance(value, bool)
            and cls.model_fields[str(info.field_name)].annotation is not bool
        ):
            raise ValueError("true and false stand for nothing here")
        return value


def _readable(objectives: tuple[str, ...]) -> tuple[str, ...]:
    for text in objectives:
        try:
            parse_objective(text)
        except ScenarioError as error:
            raise ValueError(error.message) from None
    return objectives


Objectives = Annotated[tuple[str, ...], AfterValidator(_readable)]
MOST_CONNECTIONS = 100_000


_NOT_WITH_JOURNEY = (
    "edits_per_document",
    "history",
    "payload_bytes",
    "edit",
    "bootstrap",
    "network",
)
"""What the load's own client does and a user's own page does not."""


class Phase(_Strict):
    """A stretch of the run with one plan of connections and edits.

    Connections move in a straight line, over the phase's whole length, from where the phase
    before ended to `connections`; edits from `edits_per_minute_start` to `edits_per_minute`.
    """

    name: Name
    kind: PhaseKind
    duration_s: Duration = Field(alias="duration", gt=0)
    connections: int | None = Field(default=None, ge=0, le=MOST_CONNECTIONS)
    edits_per_minute: float = Field(default=0, ge=0)
    edits_per_minute_start: float | None = Field(default=None, ge=0)
    objectives: Objectives = ()
    drop_share: float = Field(default=1.0, gt=0, le=1, description="storm: the share that drops")
    step_connections: int = Field(default=0, ge=0, description="stress: connections added a step")
    step_factor: float = Field(default=1, ge=1, le=10, description="stress: and multiplied by")
    step_edits_per_minute: float = Field(default=0, ge=0, description="stress: edits added a step")
    step_ramp_s: Duration = Field(
        default=0.0, alias="step_ramp", description="stress: in which a step adds them; 0: 20/s"
    )
    step_settle_s: Duration = Field(
        default=5.0, alias="step_settle", description="stress: left to settle before it is judged"
    )
    step_hold_s: Duration = Field(
        default=30.0, alias="step_hold", gt=0, description="stress: judged at least so long"
    )
    max_connections: int | None = Field(
        default=None, ge=1, le=MOST_CONNECTIONS, description="stress: go no further"
    )
    max_edits_per_minute: float | None = Field(
        default=None, gt=0, description="stress: go no further"
    )

    model_config = ConfigDict(populate_by_name=True)

    @property
    def has_steps(self) -> bool:
        """Say whether this is a stress phase whose load goes up in steps."""
        grows = self.step_connections > 0 or self.step_factor > 1 or self.step_edits_per_minute > 0
        return self.kind == "stress" and grows

    @property
    def most_edits_per_minute(self) -> float:
        """The most edits that it is known to ask for; steps without a limit count as the first."""
        most = max(self.edits_per_minute, self.edits_per_minute_start or 0.0)
        return max(most, self.max_edits_per_minute or 0.0) if self.has_steps else most


class FleetSpec(_Strict):
    """How many workers of what kind, and what they may cost."""

    kind: Literal["local", "ssh", "ec2"] = "local"
    workers: int = Field(default=2, ge=1, le=200)
    hosts: tuple[str, ...] = Field(default=(), description="ssh: user@address:port of each")
    key_file: str = Field(default="", description="ssh: private key; else the agent's, or yours")
    known_hosts: str = Field(default="", description="ssh: file of host keys; else your own")
    host_keys: tuple[str, ...] = Field(
        default=(), description='ssh: "address SHA256:..." of hosts whose key is pinned here'
    )
    wheelhouse: str = Field(
        default="", description="folder of wheels to ship to hosts without internet"
    )
    keep_installed: bool = Field(
        default=False, description="leave the installed environment on the hosts for the next run"
    )
    instance_types: tuple[str, ...] = Field(default=("c5.xlarge",), min_length=1)
    region: str = "eu-north-1"
    image: str = Field(default="", description="ec2: AMI; else Ubuntu 24.04 of the region")
    subnets: tuple[str, ...] = Field(default=(), description="ec2: else the default VPC's")
    addresses: Literal["", "public", "private"] = Field(
        default="", description="ec2: how machines are reached; else as their subnets have it"
    )
    security_group: str = Field(default="", description="ec2: an existing one in stead of ours")
    relay_security_group: str = Field(
        default="", description="ec2: the relay's own, which lets the workers in for the run"
    )
    instance_profile: str = Field(default="", description="ec2: its name; gives S3 to workers")
    worker_role: str = Field(
        default="", description="ARN of the role that workers' S3 credentials are made from"
    )
    worker_credentials: str = Field(
        default="", description="workers' S3 keys: env, host (they have their own), profile:NAME"
    )
    aws_credentials_block: str = Field(
        default="", description="AwsCredentials block of Prefect's for what is asked of AWS"
    )
    ssh_cidr: str = Field(default="", description="ec2: who may reach port 22; else this machine")
    ssh_from_anywhere: bool = Field(default=False, description="ec2: allow a ssh_cidr of /0")
    spot: bool = True
    on_demand_fallback: bool = True
    min_healthy: float = Field(default=0.9, gt=0, le=1)
    spread_lost_connections: bool = Field(
        default=False, description="give a lost worker's connections to the others"
    )
    replace_lost_workers: bool = Field(
        default=False, description="have another worker in a lost one's place from the next phase"
    )

    @field_validator("worker_credentials", mode="after")
    @classmethod
    def _a_known_source(cls, value: str) -> str:
        kind, _, name = value.partition(":")
        if value not in ("", "env", "host") and not (kind == "profile" and name):
            raise ValueError("should be env, host or profile:NAME")
        return value


class NetworkProfile(_Strict):
    """A worse network for a share of the connections."""

    share: float = Field(default=1.0, gt=0, le=1)
    latency_ms: float = Field(default=0, ge=0)
    kilobits_per_s: float = Field(default=0, ge=0, description="0 is unlimited")
    offline_s: Duration = Field(default=0.0, description="cut off for so long in each phase")


class Scenario(_Strict):
    """One load test, whole: what `scenarios/*.toml` says after defaults and overrides.

    `connections` is the target of the phases that name none. Rates are for the whole fleet,
    so they do not depend on the number of workers.
    """

    name: Name
    description: str = ""
    connections: int = Field(ge=0, le=MOST_CONNECTIONS)
    connections_per_document: int = Field(default=0, ge=0, description="0: all on one document")
    isolation: Isolation = "shared"
    connections_per_page: int = Field(default=100, ge=1, le=SOCKETS_PER_CONTEXT)
    edits_per_document: int = Field(default=500, ge=1)
    history: int = Field(
        default=0, ge=0, le=100_000, description="edits that a document starts with"
    )
    payload_bytes: int = Field(default=64, ge=0, le=100_000)
    edit: Literal["map", "text", "counter"] = "map"
    pacing: Literal["constant", "poisson"] = "constant"
    seed: int = Field(default=1, ge=0)
    bootstrap: Literal["none", "tonk"] = "none"
    deliveries_recorded_per_s: float = Field(
        default=2000, gt=0, description="for each worker; beyond it a weighted uniform sample"
    )
    journey: str = Field(
        default="", description="module:function of the user's own Playwright code"
    )
    journey_requirements: tuple[str, ...] = ()
    network: NetworkProfile | None = None
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="relays beyond loopback that this scenario may load"
    )
    own_relay: bool = Field(default=False, description="start a local relay if none is given")
    objectives: Objectives = ()
    fleet: FleetSpec = FleetSpec()
    phases: tuple[Phase, ...] = Field(min_length=1)
    max_usd_per_hour: float | None = Field(default=None, ge=0)
    max_usd: float | None = Field(default=None, ge=0)

    @field_validator("phases", mode="before")
    @classmethod
    def _phases_by_name(cls, value: Any) -> Any:
        """Take the file's `[phases.<name>]` tables, in their order."""
        if isinstance(value, dict):
            return tuple(
                {"name": name, **table} if isinstance(table, dict) else table
                for name, table in value.items()
            )
        return value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases have one name: {', '.join(sorted(names))}")
        for objective in self.parsed_objectives:
            if objective.phase is not None and objective.phase not in names:
                raise ValueError(
                    f"the objective {objective.text!r} names the phase {objective.phase!r}; "
                    f"there is {', '.join(names)}"
                )
        if self.journey and self.isolation != "context":
            raise ValueError('a journey drives a page of its own: isolation must be "context"')
        without = [
            name
            for name in _NOT_WITH_JOURNEY
            if self.journey and getattr(self, name) != type(self).model_fields[name].default
        ]
        if without:
            raise ValueError(
                f"a journey's page has its own sockets, documents and edits: leave out "
                f"{', '.join(without)}"
            )
        return self

    @property
    def parsed_objectives(self) -> tuple[Objective, ...]:
        """All objectives: the scenario's own, then each phase's with that phase's name."""
        own = [parse_objective(text) for text in self.objectives]
        for phase in self.phases:
            own += [
                parse_objective(text).model_copy(update={"phase": phase.name})
                for text in phase.objectives
            ]
        return tuple(own)

    @property
    def duration_s(self) -> float:
        """Length of all phases together, in seconds."""
        return sum(phase.duration_s for phase in self.phases)

    @property
    def peak_connections(self) -> int:
        """Largest number of connections that any phase plans."""
        return max(self.connections_at_end_of(phase) for phase in self.phases)

    @property
    def offline_s(self) -> float:
        """How long the network profile cuts each connection off in each phase."""
        return self.network.offline_s if self.network else 0.0

    def connections_at_end_of(self, phase: Phase) -> int:
        """Return the phase's target; a warm-up never asks for more than the scenario's own."""
        if phase.connections is None:
            return self.connections
        if phase.kind == "warmup":
            return min(phase.connections, self.connections)
        return phase.connections

    def most_connections_in(self, phase: Phase) -> int:
        """Return the most that a phase is known to ask for; steps without a limit are unknown."""
        target = self.connections_at_end_of(phase)
        return max(target, phase.max_connections or 0) if phase.has_steps else target

    def summary_line(self) -> str:
        """Return one line that says what this scenario does."""
        return (
            f"{self.peak_connections} connections, {self.fleet.workers} workers, "
            f"{len(self.phases)} phases, {format_duration(self.duration_s)}"
        )
