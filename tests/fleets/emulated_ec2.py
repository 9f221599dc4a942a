"""EC2's API emulated over HTTP, with addresses on which real SSH servers can listen."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.fleets.ssh_hosts import SshHost, ssh_host

REGION = "eu-north-1"


@dataclass(frozen=True)
class Account:
    """An empty account with one network; `calls` are the EC2 operations that were made."""

    subnet: str
    image: str
    calls: set[str]
    client: Any

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
    def boot(self, folder: Path, address: str) -> Iterator[SshHost]:
        """Stand in for the hypervisor: a host at an address, as the user data makes it."""
        folder.mkdir(parents=True)
        data = self.user_data()
        key = folder / "given_key"
        key.touch(mode=0o600)
        key.write_text(data["ssh_keys"]["ed25519_private"], encoding="utf-8")
        key.with_suffix(".pub").write_text(data["ssh_keys"]["ed25519_public"], encoding="utf-8")
        with ssh_host(
            folder, address, user_key=data["ssh_authorized_keys"][0], port=22, host_key=key
        ) as host:
            yield host


@contextlib.contextmanager
def emulated_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """Serve an empty account, to which the usual chain of settings now leads."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        # The emulator keeps its state in this process, whichever server serves it.
        reset = http.client.HTTPConnection("127.0.0.1", port)
        reset.request("POST", "/moto-api/reset")
        assert reset.getresponse().read()
        reset.close()
        ec2 = boto3.session.Session().client("ec2", region_name=REGION)
        vpc = ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.0.1.0/24")["Subnet"]["SubnetId"]
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        calls: set[str] = set()

        def record(model: Any, **_: Any) -> None:
            service = model.service_model.service_id.lower().replace(" ", "")
            calls.add(f"{service}:{model.name}")

        real = boto3.session.Session

        def watched(*words: Any, **named: Any) -> Any:
            session = real(*words, **named)
            session.events.register("before-call", record)
            return session

        monkeypatch.setattr(boto3.session, "Session", watched)
        yield Account(subnet=subnet, image=image, calls=calls, client=ec2)
    finally:
        server.stop()
