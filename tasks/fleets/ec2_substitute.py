"""One machine more, in the place of one whose worker was lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from run_store.errors import FleetError
from tasks.fleets.ec2_ledger import Ledger
from tasks.fleets.ec2_machines import rent_machines
from tasks.fleets.ec2_network import subnets_of
from tasks.fleets.ec2_order import Order
from tasks.fleets.ec2_resources import Resource, find_resources, remove_resources

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

INSTANCE = "instance"
TEMPLATE = "launch template"


def give_back_lost(client: EC2Client, instance: str) -> None:
    """End a lost worker's machine, so that the run never has more than it was to pay for.

    One that is gone already, as after a spot notice, is as good. Raises FleetError.
    """
    if remove_resources(client, [Resource(INSTANCE, instance)]).refused:
        raise FleetError(f"The machine {instance} could not be ended.")


def rent_another(client: EC2Client, order: Order, ledger: Ledger) -> str:
    """Rent one machine more from the attempt's own launch template; return its instance id.

    `order` is that of the attempt, for one worker and with a batch of its own. The machine gets
    the others' time limit, which stands in the template, and the tags that say so. Raises
    FleetError, and nothing is rented; StoreError if the call could not be recorded beforehand.
    """
    entries = ledger.entries()
    ledger.go_on_behind(entries)
    asked = [one for one in entries if one.attempt == order.attempt]
    made = {one.id for entry in asked for one in entry.made if one.kind == TEMPLATE}
    found = [one for one in find_resources(client, order.run_id) if one.id in made]
    if not found:
        raise FleetError(f"The launch template of attempt {order.attempt} is not there any more.")
    subnets, _ = subnets_of(client, order.fleet)
    order = replace(order, expires_at=found[0].expires_at)
    [instance] = rent_machines(client, order, found[0].id, subnets, ledger)
    return instance
