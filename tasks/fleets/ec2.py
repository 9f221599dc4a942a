"""Workers on machines that are rented from EC2 for one attempt, deployed to as over SSH."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from run_store.agent_config import AgentConfig
from run_store.errors import FleetError, RelayLoadError
from tasks.cost import check_budget, estimate
from tasks.deadlines import AROUND_A_LOAD_S, DEPLOY_WITHIN_S, PROVISION_WITHIN_S
from tasks.fleets import deployment
from tasks.fleets.base import Worker
from tasks.fleets.ec2_bill import machines_gone, machines_noted
from tasks.fleets.ec2_keys import Keys, make_keys
from tasks.fleets.ec2_launch import rent
from tasks.fleets.ec2_ledger import Asked, Ledger, may_appear
from tasks.fleets.ec2_machines import addresses
from tasks.fleets.ec2_network import relay_from_within, relay_port
from tasks.fleets.ec2_order import Order
from tasks.fleets.ec2_prices import current_prices
from tasks.fleets.ec2_resources import Resource, ec2_client, find_resources, remove_resources
from tasks.fleets.ec2_substitute import give_back_lost, rent_another
from tasks.fleets.remote import Access, Host, Remote, connect
from tasks.fleets.ssh import SshFleet
from tasks.observation import current_observer
from tasks.run_context import RunContext
from tasks.threads import to_its_end, until_told

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)

METADATA = "http://169.254.169.254"
"""Where a machine is told that it will be taken away; RELAY_LOAD_METADATA_URL names another."""
AROUND_S = PROVISION_WITHIN_S + DEPLOY_WITHIN_S + AROUND_A_LOAD_S + 10 * 60.0
"""How much longer than its phases a machine may live: all that may come before the load's end by
its deadlines, and a teardown. A limit within them would end the machines in the load."""
RUNNING_WITHIN_S = 180.0
SSH_WITHIN_S = 240.0
STOP_WITHIN_S = deployment.GRACE_S + 105.0
"""An agent ships for as long as it may, and what it could not is fetched behind that."""
STOP_IN_HASTE_WITHIN_S = 15.0
"""Prefect gives a cancelled run 30 s: by then the machines' end must have been asked for."""
GONE_WITHIN_S = 300.0
GONE_IN_HASTE_WITHIN_S = 5.0
"""Then it has been asked for: Prefect's hooks, which nothing limits, wait until it is done."""
CLIENT_LASTS_S = 60.0
LOOK_EVERY_S = 2.0
EMPTY_LOOKS = 2
"""What was just made may not be listed yet, so one empty look proves nothing."""


class Ec2Fleet(SshFleet):
    """Spot machines, and on-demand ones for what spot cannot give."""

    def __init__(self) -> None:
        super().__init__()
        self._relay_url: str | None = None
        self._renting = asyncio.Lock()
        self._made: dict[str, tuple[EC2Client, float]] = {}

    async def acquire(self, context: RunContext) -> list[Worker]:
        """Rent the scenario's workers; FleetError if none come, and then nothing is left."""
        await self._check_way_to_store(context)
        await asyncio.to_thread(_check_budget, context)
        try:
            found = await self._rented(context)
        except BaseException:
            await self.release(context)
            raise
        # Whoever comes behind a killed attempt knows by it what that one has cost.
        await asyncio.to_thread(machines_noted, context)
        workers = []
        for name, (instance, address) in zip(context.workers, found.items(), strict=False):
            host = Host(address)
            workers.append(Worker(name=name, where=str(host), details={"instance": instance}))
        missing = context.workers[len(workers) :]
        if missing:
            current_observer().warn(f"EC2 gave {len(workers)} of {len(context.workers)} machines")
        if len(workers) < len(context.workers) * context.scenario.fleet.min_healthy:
            await self.release(context)
            raise FleetError(
                f"Only {len(workers)} of {len(context.workers)} machines came up.",
                hint="Name more instance types, or lower fleet.min_healthy.",
            )
        return workers

    async def substitute(self, context: RunContext, name: str, lost: Worker) -> Worker | None:
        """Rent one machine more as the others were, spot first; the lost worker's is ended before.

        If that one still answers, its samples are brought home. So the run never has more
        machines than its scenario asks for, and what it costs an hour, by which `max_usd_per_hour`
        and `max_usd` were agreed to, does not rise.
        """
        await self._let_go(context, lost)
        async with self._renting:  # each call is numbered behind those on record
            instance = await to_its_end(self._rent_another, context, name)
        host = Host(await self._address(context, instance))
        await asyncio.to_thread(machines_noted, context)
        return Worker(name=name, where=str(host), details={"instance": instance})

    def access(self, context: RunContext) -> Access:
        """Return the run's own login; each machine has the host key that it was given."""
        folder = _keys_folder(context)
        keys = make_keys(folder)
        return Access(key_file=keys.user_key, host_keys={"*": keys.fingerprint})

    async def agent_config(self, context: RunContext, worker: Worker) -> AgentConfig:
        """Return what the agent is told: it may power its machine off, and has a time limit."""
        config = await super().agent_config(context, worker)
        if self._relay_url is None:
            fleet = context.scenario.fleet
            self._relay_url = await asyncio.to_thread(
                relay_from_within, self._client(context), context.relay_url, fleet
            )
        return config.model_copy(
            update={
                "power_off": True,
                "lives_at_most_s": context.scenario.duration_s + AROUND_S,
                "relay_url": self._relay_url,
                "metadata_url": os.environ.get("RELAY_LOAD_METADATA_URL") or METADATA,
            }
        )

    async def release(self, context: RunContext) -> list[str]:
        """Stop the agents, bring their samples home, and remove all that the run has in EC2.

        What was asked for lately is looked for until EC2 has shown it, or has had its time to.
        """
        await self._forget_all()
        await asyncio.to_thread(machines_noted, context)
        try:
            await self._stop_agents(context)
        except Exception:
            # Whatever it is, a disk that is full as well: what costs money comes first.
            log.exception("the agents were not stopped, their machines go all the same")
        at_most_s = GONE_IN_HASTE_WITHIN_S if context.in_haste else GONE_WITHIN_S
        deadline, empty = time.monotonic() + at_most_s, 0
        seen: set[str] = set()
        were_there: set[str] = set()
        while True:
            left, entries = await asyncio.to_thread(self._present, context)
            refused = await asyncio.to_thread(self._remove, context, left, entries, seen)
            there = {one.id for one in (*left, *refused)}
            gone, were_there = were_there - there, were_there | there
            await asyncio.to_thread(machines_gone, context, gone)
            to_come = may_appear(entries, seen, now_s=time.time())
            empty = empty + 1 if not left and not refused and not to_come else 0
            if empty >= EMPTY_LOOKS:
                # The machines come first: what they cost runs on, and the samples are here.
                return [] if context.in_haste else await self._ship_fetched(context)
            if time.monotonic() > deadline:
                return list(dict.fromkeys([*map(str, left or refused), *to_come]))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _connect(self, context: RunContext, host: Host) -> Remote:
        """Log in as soon as the machine has booted with the host key that it was given.

        Until then a machine may refuse, or show a key of its own, which is never accepted.
        """
        deadline = time.monotonic() + SSH_WITHIN_S
        while True:
            try:
                return await connect(host, self.access(context))
            except FleetError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(LOOK_EVERY_S)

    async def _rented(self, context: RunContext) -> dict[str, str]:
        """Rent the machines, and wait until they run; return their addresses.

        A cancellation lets the call that is on its way end, and no other begin.
        """
        ledger = self._ledger(context)
        instances = await until_told(ledger.close, self._rent, context, ledger)
        return await asyncio.to_thread(
            addresses,
            self._client(context),
            instances,
            within_s=RUNNING_WITHIN_S,
            which=context.scenario.fleet.addresses,
        )

    def _rent(self, context: RunContext, ledger: Ledger) -> list[str]:
        keys: Keys = make_keys(_keys_folder(context))
        return rent(self._client(context), _order(context), keys, ledger)

    async def _let_go(self, context: RunContext, lost: Worker) -> None:
        """Bring a lost worker's samples home if its machine answers, and end the machine."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._release(context, lost.name, Host.from_text(lost.where))
        except TimeoutError:
            current_observer().warn(f"the machine of {lost.name} did not let its agent be stopped")
        await self._forget(lost.name)
        await to_its_end(self._end, context, lost.details["instance"])

    def _end(self, context: RunContext, instance: str) -> None:
        give_back_lost(self._client(context), instance)

    def _rent_another(self, context: RunContext, name: str) -> str:
        order = replace(_order(context), workers=1, batch=f"-{name}")
        return rent_another(self._client(context), order, self._ledger(context))

    async def _address(self, context: RunContext, instance: str) -> str:
        """Wait for a machine to run; return its address. Raises FleetError."""
        deadline = time.monotonic() + RUNNING_WITHIN_S
        client = await asyncio.to_thread(self._client, context)
        which = context.scenario.fleet.addresses
        while time.monotonic() < deadline:
            found = await asyncio.to_thread(addresses, client, [instance], within_s=0, which=which)
            if instance in found:
                return found[instance]
            await asyncio.sleep(LOOK_EVERY_S)
        raise FleetError(f"{instance} was not running within {RUNNING_WITHIN_S:g} s.")

    def _client(self, context: RunContext) -> EC2Client:
        """Return a client that is at most a minute old: what lets it in may have been renewed."""
        fleet = context.scenario.fleet
        client, made_at = self._made.get(fleet.region, (None, 0.0))
        if client is None or time.monotonic() - made_at > CLIENT_LASTS_S:
            client = ec2_client(fleet.region, fleet.aws_credentials_block)
            self._made[fleet.region] = client, time.monotonic()
        return client

    def _ledger(self, context: RunContext) -> Ledger:
        region = context.scenario.fleet.region
        return Ledger(context.store(), context.run_id, context.attempt, region)

    def _present(self, context: RunContext) -> tuple[list[Resource], list[Asked]]:
        """Return what carries the run's tags, and the records of what was asked for."""
        client = self._client(context)
        try:
            entries = self._ledger(context).entries()
        except RelayLoadError as error:
            log.warning("the records of what was rented cannot be read: %s", error)
            entries = []
        try:
            found = find_resources(client, context.run_id)
        except RelayLoadError:
            # What cannot be looked for is removed by its record, before the trouble is told.
            self._remove(context, [], entries, set())
            raise
        return found, entries

    def _remove(
        self, context: RunContext, left: list[Resource], entries: list[Asked], seen: set[str]
    ) -> list[Resource]:
        """Remove what was found and what is recorded, and add to `seen` what EC2 knows of it.

        Returns what refused for now.
        """
        known = {one.id for one in left}
        recorded = [one for asked in entries for one in asked.made if one.id not in known]
        said = remove_resources(self._client(context), [*left, *recorded])
        unsure = {one.id for one in (*said.unknown, *said.refused)}
        seen |= known | {one.id for one in recorded if one.id not in unsure}
        self._ledger(context).settle(entries, seen)
        return said.refused

    async def _stop_agents(self, context: RunContext) -> None:
        """Stop the agents in order while their machines are there; silent machines just go."""
        if not (_keys_folder(context) / "user_key").exists():
            return  # released by another machine, which cannot log in
        client = await asyncio.to_thread(self._client, context)
        found = await asyncio.to_thread(find_resources, client, context.run_id)
        ids = [one.id for one in found if one.kind == "instance"]
        if not ids:
            return
        which = context.scenario.fleet.addresses
        hosts = await asyncio.to_thread(addresses, client, ids, within_s=0, which=which)
        try:
            at_most_s = STOP_IN_HASTE_WITHIN_S if context.in_haste else STOP_WITHIN_S
            async with asyncio.timeout(at_most_s):
                problems = await asyncio.gather(
                    *(self._release(context, name, Host(at)) for name, at in hosts.items())
                )
            for problem in filter(None, problems):
                current_observer().warn(
                    f"what {problem} could not ship was not fetched, and its machine goes now"
                )
        except TimeoutError:
            current_observer().warn("not every machine let its agent be stopped; they go now")

    def _touched(self, context: RunContext, name: str) -> bool:  # noqa: ARG002 - the base's
        return True


def _order(context: RunContext) -> Order:
    """Return what an attempt rents at its beginning."""
    return Order(
        run_id=context.run_id,
        attempt=context.attempt,
        workers=len(context.workers),
        expires_at=time.time() + context.scenario.duration_s + AROUND_S,
        fleet=context.scenario.fleet,
        relay_port=relay_port(context.relay_url),
    )


def _check_budget(context: RunContext) -> None:
    """Raise FleetError if the run would cost more than its scenario allows; nothing is rented."""
    scenario = context.scenario
    prices = current_prices(scenario.fleet)
    check_budget(scenario, estimate(scenario, fleet="ec2", prices=prices))


def _keys_folder(context: RunContext) -> Path:
    return context.folder / f"attempt-{context.attempt}" / "ec2"
