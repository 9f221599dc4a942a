"""What a user chose on their Prefect server stays theirs when the project is registered again.

`prefect deploy` makes a deployment what `prefect.yaml` says, whole: a schedule that was switched
on is off again, one that was added is gone, and so are parameters such as the relay's address.
So what is deployed is that file with the server's choices put into it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any

from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse

_OF_A_SCHEDULE = ("cron", "day_or", "interval", "anchor_date", "rrule", "timezone")


def with_choices(
    declared: Mapping[str, Any],
    known: Sequence[DeploymentResponse],
    *,
    disabled: Collection[str] = (),
    takes: Mapping[str, Collection[str]],
) -> dict[str, Any]:
    """Return what `prefect.yaml` declares, with what the server's deployments were changed to.

    Of a deployment that is `known` there (by entrypoint and name) its parameters, schedules, job
    variables and its being paused count; the file adds what is new. `disabled` names automations
    that are off. `takes` says which parameters the flow at an entrypoint takes today: others are
    left out.
    """
    file = deepcopy(dict(declared))
    there = {(one.entrypoint, one.name): one for one in known}
    for deployment in file.get("deployments", []):
        before = there.get((deployment.get("entrypoint"), deployment.get("name")))
        if before is not None:
            allowed = takes.get(str(before.entrypoint), ())
            _put_choices(deployment, before, allowed)
        for trigger in deployment.get("triggers", []):
            if trigger.get("name") in disabled:
                trigger["enabled"] = False
    return file


def _put_choices(
    deployment: dict[str, Any], before: DeploymentResponse, allowed: Collection[str]
) -> None:
    chosen = {name: value for name, value in before.parameters.items() if name in allowed}
    deployment["parameters"] = {**deployment.get("parameters", {}), **chosen}
    slugs = {one.slug for one in before.schedules}
    new = [one for one in deployment.get("schedules", []) if one.get("slug") not in slugs]
    deployment["schedules"] = [*map(_as_declared, before.schedules), *new]
    if before.paused:
        deployment["paused"] = True
    pool = deployment.setdefault("work_pool", {})
    ours, theirs = pool.get("job_variables") or {}, before.job_variables or {}
    pool["job_variables"] = {**ours, **theirs}
    if "env" in ours or "env" in theirs:
        pool["job_variables"]["env"] = {**ours.get("env", {}), **theirs.get("env", {})}


def _as_declared(one: DeploymentSchedule) -> dict[str, Any]:
    """Return a schedule of the server as a project file writes it."""
    schedule = one.schedule.model_dump(mode="json", exclude_none=True)
    told: dict[str, Any] = {key: schedule[key] for key in _OF_A_SCHEDULE if key in schedule}
    told["active"] = one.active
    if one.slug:
        told["slug"] = one.slug
    if one.parameters:
        told["parameters"] = one.parameters
    return told
