from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

from flows.kept_choices import with_choices

ENTRYPOINT = "flows/capacity.py:relay_capacity"
TAKES = {ENTRYPOINT: ["scenario", "fleet", "max_usd", "relay_url"]}
FILE: dict[str, Any] = {
    "name": "relay-load",
    "deployments": [
        {
            "name": "weekly",
            "entrypoint": ENTRYPOINT,
            "work_pool": {"name": "relay-load", "job_variables": {"env": {"BEAT": "30"}}},
            "parameters": {"scenario": "moderate", "max_usd": 10},
            "schedules": [
                {"cron": "0 6 * * 1", "timezone": "UTC", "slug": "mondays", "active": False}
            ],
            "triggers": [{"name": "the heartbeat", "enabled": True}],
        }
    ],
}


def server(*schedules: DeploymentSchedule, **more: Any) -> DeploymentResponse:
    """Return the deployment as a server has it."""
    given = {"parameters": {"scenario": "moderate", "max_usd": 10}, "job_variables": {}, **more}
    return DeploymentResponse(
        name="weekly",
        flow_id=uuid4(),
        entrypoint=ENTRYPOINT,
        schedules=list(schedules),
        **given,
    )


def mondays(*, active: bool = False, **more: Any) -> DeploymentSchedule:
    schedule = CronSchedule(cron=more.pop("cron", "0 6 * * 1"), timezone="UTC")
    return DeploymentSchedule(slug="mondays", schedule=schedule, active=active, **more)


def deployed(*known: DeploymentResponse, **more: Any) -> dict[str, Any]:
    """Return the one deployment that is registered in the end."""
    [found] = with_choices(FILE, known, takes=TAKES, **more)["deployments"]
    return dict(found)


def test_a_new_server_gets_what_the_file_says() -> None:
    """Also one that knows a deployment of the same name, but of another flow."""
    assert with_choices(FILE, [], takes=TAKES) == FILE
    other = server(mondays(active=True)).model_copy(update={"entrypoint": "their.py:flow"})
    assert with_choices(FILE, [other], takes=TAKES) == FILE


def test_a_schedule_stays_on_or_off() -> None:
    """What was switched on in the UI is on, at the time that was set there."""
    on = deployed(server(mondays(active=True, cron="30 7 * * 2", parameters={"fleet": "local"})))
    assert on["schedules"] == [
        {
            "cron": "30 7 * * 2",
            "day_or": True,
            "timezone": "UTC",
            "active": True,
            "slug": "mondays",
            "parameters": {"fleet": "local"},
        }
    ]
    assert not deployed(server(mondays()))["schedules"][0]["active"]
    # The file itself is as it was.
    assert FILE["deployments"][0]["schedules"][0]["active"] is False


def test_schedules_of_the_users_own_stay() -> None:
    """Of every kind; one that the file has and the server has not is added."""
    anchor = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    daily = IntervalSchedule(interval=dt.timedelta(days=1), anchor_date=anchor, timezone="UTC")
    rule = RRuleSchedule(rrule="FREQ=WEEKLY", timezone="Europe/Berlin")
    theirs = [DeploymentSchedule(schedule=one, active=True) for one in (daily, rule)]
    first, second, ours = deployed(server(*theirs))["schedules"]
    assert (first["interval"], first["active"]) == (86400.0, True)
    assert first["anchor_date"].startswith("2026-01-05")
    assert (second["rrule"], second["timezone"]) == ("FREQ=WEEKLY", "Europe/Berlin")
    assert ours == FILE["deployments"][0]["schedules"][0]


@pytest.mark.parametrize(
    ("set_there", "wanted"),
    [
        ({"relay_url": "ws://r/"}, {"scenario": "moderate", "max_usd": 10, "relay_url": "ws://r/"}),
        ({"scenario": "heavy", "max_usd": 3}, {"scenario": "heavy", "max_usd": 3}),
        # Of a flow that had it once: it would refuse it now.
        ({"budget": 3}, {"scenario": "moderate", "max_usd": 10}),
    ],
)
def test_parameters_stay(set_there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """What was set there counts, as long as the flow takes it; the file adds the rest."""
    assert deployed(server(parameters=set_there))["parameters"] == wanted


def test_job_variables_and_pauses_stay() -> None:
    """Variables of the environment too, one by one."""
    found = deployed(server(job_variables={"env": {"RELAY_URL": "ws://r/"}}, paused=True))
    assert found["work_pool"]["job_variables"] == {"env": {"BEAT": "30", "RELAY_URL": "ws://r/"}}
    assert found["paused"] is True
    assert "paused" not in deployed(server())


def test_an_automation_that_is_off_stays_off() -> None:
    """By its name, which is how a server tells ours from others."""
    off = deployed(disabled=["the heartbeat", "another"])
    assert off["triggers"] == [{"name": "the heartbeat", "enabled": False}]
    assert deployed()["triggers"][0]["enabled"]
