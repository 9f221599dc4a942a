"""Renting: a key pair, security groups and a launch template, and then the machines."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from tasks.fleets.ec2_image import image_of
from tasks.fleets.ec2_keys import Keys
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_machines import rent_machines
from tasks.fleets.ec2_network import security_groups, subnets_of
from tasks.fleets.ec2_order import Order
from tasks.fleets.ec2_resources import Resource, explained
from tasks.fleets.ec2_user_data import user_data

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

VOLUME_GIB = 20


def rent(client: EC2Client, order: Order, keys: Keys, ledger: Ledger) -> list[str]:
    """Rent the machines; return their instance ids, which may be fewer than were ordered.

    Raises FleetError; what was made until then is in the ledger and carries our tags.
    """
    image, device = image_of(client, order.fleet)
    subnets, vpc = subnets_of(client, order.fleet)
    _import_key_pair(client, order, keys, ledger)
    groups = security_groups(client, order, vpc, ledger)
    data = _template_data(order, keys, image=image, device=device, groups=groups)
    with ledger.asking("CreateLaunchTemplate", order.name) as asked:
        with explained("make a launch template"):
            made = client.create_launch_template(
                LaunchTemplateName=order.name,
                LaunchTemplateData=data,  # type: ignore[arg-type]  # built from parts
                ClientToken=order.name[-64:],
                TagSpecifications=order.tags("launch-template"),
            )
        template = made["LaunchTemplate"]["LaunchTemplateId"]
        ledger.got(asked, Resource("launch template", template))
    return rent_machines(client, order, template, subnets, ledger)


def _template_data(
    order: Order, keys: Keys, *, image: str, device: str, groups: list[str]
) -> dict[str, Any]:
    """Return what every machine is made from."""
    data: dict[str, Any] = {
        "ImageId": image,
        "KeyName": order.name,
        **_network(order, groups),
        "UserData": base64.b64encode(user_data(keys, order.expires_at).encode()).decode(),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [
            {
                "DeviceName": device,
                "Ebs": {
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                    "VolumeSize": VOLUME_GIB,
                    "VolumeType": "gp3",
                },
            }
        ],
        "TagSpecifications": order.tags("instance", "volume", "network-interface"),
    }
    if order.fleet.instance_profile:
        data["IamInstanceProfile"] = {"Name": order.fleet.instance_profile}
    return data


def _network(order: Order, groups: list[str]) -> dict[str, Any]:
    """Return the security groups, and whether a machine gets a public address whatever its subnet.

    Only a network interface can say that, and then it is what has the groups.
    """
    which = order.fleet.addresses
    if not which:
        return {"SecurityGroupIds": groups}
    interface = {
        "DeviceIndex": 0,
        "AssociatePublicIpAddress": which == "public",
        "DeleteOnTermination": True,
        "Groups": groups,
    }
    return {"NetworkInterfaces": [interface]}


def _import_key_pair(client: EC2Client, order: Order, keys: Keys, ledger: Ledger) -> None:
    with ledger.asking("ImportKeyPair", order.name) as asked:
        with explained("import the run's key pair"):
            client.import_key_pair(
                KeyName=order.name,
                PublicKeyMaterial=keys.user_public.encode(),
                TagSpecifications=order.tags("key-pair"),
            )
        ledger.got(asked, Resource("key pair", order.name))
