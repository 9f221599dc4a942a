"""Flags and admin requests of the local relay that are none."""

import json
import subprocess

import pytest

from tests.local_relay.clients import OFF
from tests.relay_process import NODE, RELAY, RelayProcess


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nonsense"], "--nonsense"),
        (["--port", "many"], "--port must be a number"),
        (["--port", "70000"], "from 0 to 65535"),
        (["--service-noise", "2"], "service_noise must be a number from 0 to 1"),
        (["--max-connections", "1.5"], "max_connections must be a whole number"),
        (["--stall-at-s", "3"], "--stall-s"),
    ],
)
def test_a_bad_flag_is_said_and_ends_with_2(flags: list[str], said: str) -> None:
    """An unknown flag or an impossible value is named on stderr."""
    done = subprocess.run(
        [str(NODE), str(RELAY), *flags], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_help_names_every_fault(relay: RelayProcess) -> None:
    """--help lists each fault that the admin endpoint knows."""
    done = subprocess.run(
        [str(NODE), str(RELAY), "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    for name in relay.admin("GET", "/faults"):
        assert f"--{name.replace('_', '-')} " in done.stdout


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"delay_out_ms": 5, "dleay_in_ms": 5}, "dleay_in_ms"),
        ({"delay_out_ms": 5, "delay_in_ms": -1}, "from 0 to 600000 (ms)"),
        ({"delay_out_ms": 5, "delay_in_ms": "5"}, "delay_in_ms"),
        ({"delay_out_ms": 5, "delay_in_ms": None}, "delay_in_ms"),
        ({"delay_out_ms": 5, "metrics_fail": 1}, "true or false"),
        ({"delay_out_ms": 5, "protocol_version": ""}, "1 to 32 characters"),
        ([], "JSON object"),
    ],
)
def test_a_bad_change_of_faults_changes_nothing(
    relay: RelayProcess, body: object, said: str
) -> None:
    """A fault that is unknown or cannot have the value is named with 400; the rest stays too."""
    status, answer = relay.admin_answer("PUT", "/faults", body)
    assert status == 400
    assert said in json.loads(answer)["error"]
    assert relay.admin("GET", "/faults") == OFF


@pytest.mark.parametrize("body", [{}, {"count": -1}, {"share": 1.1}, {"count": 1, "share": 1}, 3])
def test_a_bad_drop_is_refused(relay: RelayProcess, body: object) -> None:
    """POST /drop wants a count or a share."""
    assert relay.admin_answer("POST", "/drop", body)[0] == 400


def test_a_port_in_use_is_said_and_ends_with_1(relay: RelayProcess) -> None:
    """One message says which port and what to do; there is no traceback."""
    port = relay.http_url.rsplit(":", 1)[1]
    done = subprocess.run(
        [str(NODE), str(RELAY), "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert port in done.stderr
    assert "already in use" in done.stderr
