"""The image that rented machines start from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from run_store.errors import FleetError, UsageError
from scenarios.model import FleetSpec
from tasks.fleets.aws_account import session_of
from tasks.fleets.ec2_resources import OPTIONS, explained

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

IMAGE = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"


def image_of(client: EC2Client, fleet: FleetSpec) -> tuple[str, str]:
    """Return the image's id and its root device: the fleet's own, or Ubuntu 24.04 of the region.

    Raises UsageError if one image cannot serve all instance types, FleetError if there is none.
    """
    arm = {bool(re.match(r"[a-z]+\d+g", kind)) for kind in fleet.instance_types}
    if len(arm) > 1:
        raise UsageError("fleet.instance_types mixes x86 and Arm; one image serves one of them.")
    image = fleet.image
    if not image:
        name = IMAGE.format("arm64" if arm.pop() else "amd64")
        with explained(
            f"look up the image {name} in {fleet.region}",
            service="ssm",
            hints={"ParameterNotFound": "Name an image of that region: fleet.image."},
        ):
            ssm = session_of(fleet.aws_credentials_block).client(
                "ssm", region_name=fleet.region, config=OPTIONS
            )
            image = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    with explained(
        f"describe the image {image} in {fleet.region}",
        hints={"InvalidAMIID.NotFound": "An image belongs to one region: set fleet.image."},
    ):
        found = client.describe_images(ImageIds=[image])["Images"]
    if not found:
        raise FleetError(f"There is no image {image} in {fleet.region}.", hint="Set fleet.image.")
    return image, found[0].get("RootDeviceName", "/dev/sda1")
