"""`python -m benchmarks.faults.account FILE`: rent and give back while EC2 answers with errors.

EC2 is emulated, and reached through the suite's own HTTP server. For each group of
operations that the file names a rental is tried, is given back, and what the account then still
holds is looked at. Prints one JSON list: how each rental ended, and what was left.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from moto.server import ThreadedMotoServer
from pydantic import BaseModel

from benchmarks.faults.proxy import Answer, Request, Teller
from run_store.credentials import session_with
from run_store.errors import RelayLoadError
from run_store.store import StoreAddress
from scenarios.loading import load_scenario
from tasks.fleets.ec2 import Ec2Fleet
from tasks.run_context import RunContext

REGION = "eu-north-1"
OPERATIONS = (
    "DescribeSubnets",
    "DescribeImages",
    "ImportKeyPair",
    "CreateSecurityGroup",
    "AuthorizeSecurityGroupIngress",
    "CreateLaunchTemplate",
    "CreateFleet",
    "DescribeInstances",
    "DescribeLaunchTemplates",
    "DescribeKeyPairs",
    "DescribeSecurityGroups",
    "DescribeSecurityGroupRules",
    "TerminateInstances",
    "DeleteLaunchTemplate",
    "DeleteKeyPair",
    "DeleteSecurityGroup",
)
"""What a rental and its return call."""
RENTING = OPERATIONS[:7]
SERVICES = ("EC2", "SSM", "STS", "SERVICE_QUOTAS")
ERROR = (
    "<Response><Errors><Error><Code>{code}</Code><Message>of the suite</Message></Error></Errors>"
    "<RequestID>00000000-0000-4000-8000-000000000000</RequestID></Response>"
)


NOBODY = (
    '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
    "<requestId>00000000-0000-4000-8000-000000000000</requestId><reservationSet/>"
    "</DescribeInstancesResponse>"
)


class Order(BaseModel):
    """What is to be tried: each operation of a group fails its first `times` calls in this way.

    With `hidden` EC2 neither lists nor knows the machines for so many looks after their rental.
    """

    store: Path
    folder: Path
    groups: list[list[str]]
    status: int
    code: str
    times: int
    hidden: int = 0


class Fails:
    """Answers the first calls of some operations with an error; `left` are those yet to fail."""

    def __init__(self, operations: list[str], order: Order) -> None:
        self._answer = Answer(order.status, ERROR.format(code=order.code), "text/xml")
        self.left = dict.fromkeys(operations, order.times)

    def __call__(self, request: Request) -> Answer | None:
        """Return the error while there are some left."""
        action = parse_qs(request.body.decode(errors="replace")).get("Action", [""])[0]
        if self.left.get(action, 0) <= 0:
            return None
        self.left[action] -= 1
        return self._answer


class Hides:
    """Lists no machines for some looks, and does not know those that are to be ended."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def __call__(self, request: Request) -> Answer | None:
        """Return what EC2 says of machines that it does not know yet."""
        action = parse_qs(request.body.decode(errors="replace")).get("Action", [""])[0]
        if self.looks <= 0:
            return None
        if action == "DescribeInstances":
            self.looks -= 1
            return Answer(200, NOBODY, "text/xml")
        if action == "TerminateInstances":
            return Answer(400, ERROR.format(code="InvalidInstanceID.NotFound"), "text/xml")
        return None


def main(file: Path) -> int:
    """Try what a file orders, and print what came of it."""
    order = Order.model_validate_json(file.read_text(encoding="utf-8"))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with Teller(f"http://{host}:{port}") as teller, Teller(f"http://{host}:{port}") as prices:
            # The emulator has no price list, and saying so takes it seconds.
            none = Answer(200, '{"PriceList": []}', "application/x-amz-json-1.1")
            prices.tell = lambda _: none
            os.environ.update({f"AWS_ENDPOINT_URL_{name}": teller.url for name in SERVICES})
            os.environ.update(
                AWS_ENDPOINT_URL_PRICING=prices.url,
                AWS_ACCESS_KEY_ID="test",
                AWS_SECRET_ACCESS_KEY="test",  # noqa: S106 - the emulator takes any
            )
            print(json.dumps([_tried(order, group, teller) for group in order.groups]))
    finally:
        server.stop()
    return 0


def _tried(order: Order, operations: list[str], teller: Teller) -> dict[str, Any]:
    ec2 = session_with(None).client("ec2", region_name=REGION)
    teller.tell = lambda _: None
    context = _context(order, operations[0], ec2)
    fails = Fails(operations, order)
    teller.tell = fails
    hides = Hides(order.hidden)
    said = asyncio.run(_rented(context, teller, hides))
    spared = [name for name, left in fails.left.items() if left == order.times]
    return {"operations": operations, **said, "spared": spared, "looks": hides.looks} | {
        "left": _left(ec2, teller)
    }


async def _rented(context: RunContext, teller: Teller, hides: Hides) -> dict[str, str]:
    """Rent and give back; return how both ended, in words."""
    said = {"rented": "", "returned": ""}
    try:
        workers = await Ec2Fleet().acquire(context)
        said["rented"] = f"{len(workers)} machines"
    except RelayLoadError as error:
        said["rented"] = str(error)
    if hides.looks:
        teller.tell = hides
    # Whoever finds that not all was given back tries again: the flow's `finally`, hooks, sweep.
    for _ in range(3):
        try:
            left = await Ec2Fleet().release(context)
            said["returned"] = f"still there: {', '.join(left)}" if left else "all"
        except RelayLoadError as error:
            said["returned"] = str(error)
        if said["returned"] == "all":
            break
    return said


def _context(order: Order, operation: str, ec2: Any) -> RunContext:
    vpc = ec2.create_vpc(CidrBlock="127.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="127.0.100.0/24")["Subnet"]["SubnetId"]
    fleet = {
        "subnets": [subnet],
        "image": ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        "ssh_cidr": "203.0.113.7/32",
    }
    run_id = f"ec2-{operation.lower()}"
    return RunContext(
        run_id=run_id,
        attempt=1,
        scenario=load_scenario("baseline", {"connections": 10, "fleet": fleet}),
        relay_url="ws://127.0.0.1:9/",
        has_metrics=True,
        address=StoreAddress.from_file(order.store),
        folder=order.folder / run_id,
        fleet="ec2",
    )


def _left(ec2: Any, teller: Teller) -> list[str]:
    """Name all that costs money or stays."""
    teller.tell = lambda _: None
    alive = [
        one["InstanceId"]
        for reservation in ec2.describe_instances()["Reservations"]
        for one in reservation["Instances"]
        if one["State"]["Name"] != "terminated"
    ]
    templates = ec2.describe_launch_templates()["LaunchTemplates"]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    return [
        *alive,
        *(one["LaunchTemplateId"] for one in templates),
        *(one["KeyName"] for one in ec2.describe_key_pairs()["KeyPairs"]),
        *(one["GroupId"] for one in groups if one["GroupName"] != "default"),
    ]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
