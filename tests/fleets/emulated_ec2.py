"""EC2's API emulated over HTTP, with addresses on which real SSH servers can listen."""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from run_store.credentials import session_with
from tests.fleets.ssh_hosts import SshHost, ssh_host
from tests.worker_agent.metadata_service import MetadataService

REGION = "eu-north-1"
METADATA_URL = "RELAY_LOAD_METADATA_URL"
Answer = Callable[[str], tuple["_Status", dict[str, Any]] | None]
"""Takes an operation's name; returns what is answered in the emulator's stead, or None."""


@dataclass(frozen=True)
class _Status:
    """All that botocore asks of an answer that it did not receive."""

    status_code: int


def _error(code: str, message: str) -> tuple[_Status, dict[str, Any]]:
    return _Status(400), {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }


@dataclass(frozen=True)
class Account:
    """An empty account with one network; `calls` are the EC2 operations that were made."""

    subnet: str
    image: str
    calls: set[str]
    client: Any
    vpc: str = ""
    answers: list[Answer] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    metadata: MetadataService | None = None

    def variables(self) -> dict[str, str]:
        """Return what leads another process to this account."""
        return {
            name: value
            for name, value in os.environ.items()
            if name.startswith("AWS_") or name == METADATA_URL
        }

    def fleet(self) -> dict[str, object]:
        """Return the fields of a scenario's fleet that rent in this account's one network."""
        return {
            "fleet.subnets": [self.subnet],
            "fleet.image": self.image,
            "fleet.ssh_cidr": "203.0.113.7/32",
        }

    def refuse(self, operation: str, code: str, message: str = "as the test wants") -> None:
        """Have every call of an operation answered with an error."""
        self.answers.append(lambda name: _error(code, message) if name == operation else None)

    def refuse_first(self, operation: str, code: str, *, times: int) -> None:
        """Have the next calls of an operation answered with an error."""
        left = [_error(code, "not yet")] * times
        self.answers.append(lambda name: left.pop() if name == operation and left else None)

    def answer(self, operation: str, parsed: dict[str, Any], *, times: int = 1) -> None:
        """Have the next calls of an operation answered with this, unasked."""
        left = [(_Status(200), parsed)] * times
        self.answers.append(lambda name: left.pop() if name == operation and left else None)

    def left(self) -> list[str]:
        """Name all that costs money or stays: machines, templates, keys and groups."""
        ec2 = self.client
        instances = [
            one["InstanceId"]
            for reservation in ec2.describe_instances()["Reservations"]
            for one in reservation["Instances"]
            if one["State"]["Name"] != "terminated"
        ]
        templates = [
            t["LaunchTemplateId"] for t in ec2.describe_launch_templates()["LaunchTemplates"]
        ]
        pairs = [pair["KeyName"] for pair in ec2.describe_key_pairs()["KeyPairs"]]
        groups = [
            group["GroupId"]
            for group in ec2.describe_security_groups()["SecurityGroups"]
            if group["GroupName"] != "default"
        ]
        return [*instances, *templates, *pairs, *groups]

    def fewer(self, count: int) -> None:
        """Have the next fleet give no more machines than that, and later ones none."""
        self.limits.append(count)

    @contextlib.contextmanager
    def hypervisor(self, folder: Path, *, environment: Path | None = None) -> Iterator[list[Path]]:
        """Boot a host for each machine that runs, and end it when the machine is gone.

        Yields the folders of the hosts that were booted; `environment` is installed on each.
        """
        booted: dict[str, contextlib.ExitStack] = {}
        folders: list[Path] = []
        ending = threading.Event()

        def look() -> None:
            while not ending.wait(0.2):
                running = self._running()
                for name, address in running.items():
                    if name not in booted:
                        booted[name] = contextlib.ExitStack()
                        host = self.boot(folder / name, address, environment=environment)
                        booted[name].enter_context(host)
                        folders.append(folder / name)
                for name in booted.keys() - running.keys():
                    booted[name].close()
                for name in running:
                    # It terminates on shutdown, as its launch template says.
                    if powered_off(folder / name):
                        self.client.terminate_instances(InstanceIds=[name])

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield folders
        finally:
            ending.set()
            thread.join()
            for host in booted.values():
                host.close()

    def _running(self) -> dict[str, str]:
        return {
            one["InstanceId"]: one["PrivateIpAddress"]
            for reservation in self.client.describe_instances()["Reservations"]
            for one in reservation["Instances"]
            if one["State"]["Name"] == "running"
        }

    def user_data(self) -> dict[str, Any]:
        """What the launch template gives a machine when it boots."""
        template = self.client.describe_launch_templates()["LaunchTemplates"][0]
        versions = self.client.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"]
        )
        data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        text = base64.b64decode(data["UserData"]).decode()
        assert text.startswith("#cloud-config\n")
        parsed: dict[str, Any] = json.loads(text.partition("\n")[2])
        return parsed

    @contextlib.contextmanager
    def boot(
        self, folder: Path, address: str, *, environment: Path | None = None
    ) -> Iterator[SshHost]:
        """Stand in for the hypervisor: a host at an address, as the user data makes it."""
        folder.mkdir(parents=True)
        data = self.user_data()
        key = folder / "given_key"
        key.touch(mode=0o600)
        key.write_text(data["ssh_keys"]["ed25519_private"], encoding="utf-8")
        key.with_suffix(".pub").write_text(data["ssh_keys"]["ed25519_public"], encoding="utf-8")
        with ssh_host(
            folder,
            address,
            user_key=data["ssh_authorized_keys"][0],
            port=22,
            host_key=key,
            prepared=environment,
            environment=f"PATH={power_stand_ins(folder)}:{os.environ['PATH']}",
        ) as host:
            yield host


def power_stand_ins(folder: Path) -> Path:
    """Return a folder of commands that only note that a host was to be powered off."""
    commands = folder / "power"
    commands.mkdir()
    for name in ("systemctl", "shutdown", "poweroff"):
        command = commands / name
        command.write_text(f'#!/bin/sh\necho "{name} $@" >> "{folder}/off"\n', encoding="utf-8")
        command.chmod(0o755)
    return commands


def powered_off(folder: Path) -> str:
    """Return by which command a host was powered off; empty if it was not."""
    off = folder / "off"
    return off.read_text(encoding="utf-8").strip() if off.exists() else ""


@functools.cache
def _emulator() -> int:
    """Serve the emulator for as long as this process lives; return its port.

    It takes a second to start and half a second to end, and an account is emptied in no time.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    return int(server.get_host_and_port()[1])


@contextlib.contextmanager
def emulated_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Serve an empty account, to which the usual chain of settings now leads."""
    port = _emulator()
    metadata = MetadataService()
    metadata.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{port}")
        monkeypatch.setenv(METADATA_URL, metadata.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        # The emulator keeps its state in this process, whichever server serves it.
        reset = http.client.HTTPConnection("127.0.0.1", port)
        reset.request("POST", "/moto-api/reset")
        assert reset.getresponse().read()
        reset.close()
        ec2 = session_with(None).client("ec2", region_name=REGION)
        vpc = ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
        # Of its own for each process of the tests: its machines all listen on port 22.
        network = f"127.0.{100 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])}.0/24"
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=network)["Subnet"]["SubnetId"]
        [image] = [one["ImageId"] for one in ec2.describe_images(Owners=["amazon"])["Images"]]
        calls: set[str] = set()
        answers: list[Answer] = []
        limits: list[int] = []

        def record(model: Any, **_: Any) -> Any:
            service = model.service_model.service_id.lower().replace(" ", "")
            calls.add(f"{service}:{model.name}")
            given = (answer(model.name) for answer in answers)
            return next((answer for answer in given if answer is not None), None)

        def limit(params: Any, **_: Any) -> None:
            if limits:
                params["TargetCapacitySpecification"]["TotalTargetCapacity"] = limits.pop()
                through = [True]  # this call itself; then nothing

                def nothing(name: str) -> tuple[_Status, dict[str, Any]] | None:
                    if name != "CreateFleet" or (through and through.pop()):
                        return None
                    return _Status(200), {}

                answers.append(nothing)

        real = boto3.session.Session

        def watched(*words: Any, **named: Any) -> Any:
            session = real(*words, **named)
            session.events.register("before-call", record)
            session.events.register("provide-client-params.ec2.CreateFleet", limit)
            return session

        monkeypatch.setattr(boto3.session, "Session", watched)
        yield Account(
            subnet=subnet,
            image=image,
            calls=calls,
            client=ec2,
            vpc=vpc,
            answers=answers,
            limits=limits,
            metadata=metadata,
        )
    finally:
        metadata.stop()
