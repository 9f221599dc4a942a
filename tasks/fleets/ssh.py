"""Workers on hosts that the user names, reached over SSH."""

from __future__ import annotations

import asyncio
import logging
import tarfile
import time
from pathlib import Path

from run_store.agent_config import AgentConfig
from run_store.errors import FleetError, RelayLoadError
from tasks.fleets import deployment
from tasks.fleets.base import Worker
from tasks.fleets.deployment import Place
from tasks.fleets.remote import Access, Host, Remote, connect
from tasks.fleets.spools import ship_here, unpack, waiting_spools
from tasks.fleets.wheelhouse import Payload, make_payload
from tasks.fleets.worker_access import WorkerAccess, access_of, without_keys
from tasks.observation import current_observer
from tasks.run_context import RunContext, worker_name

log = logging.getLogger(__name__)

TRIES = 2
LOOK_EVERY_S = 5.0
"""How often a host is asked whether its agent runs; in between the heartbeat says enough."""


class SshFleet:
    """Agents on the scenario's `fleet.hosts`. One object serves one process; any may release."""

    def __init__(self) -> None:
        self._payload: asyncio.Task[Payload] | None = None
        self._remotes: dict[str, Remote] = {}
        self._places: dict[str, Place] = {}
        self._runs: dict[str, bool] = {}
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._logins: WorkerAccess | None = None

    async def acquire(self, context: RunContext) -> list[Worker]:
        """Give the scenario's hosts as workers; nothing is rented.

        Raises FleetError if there are too few or they have no way to the store, UsageError if
        one cannot be read.
        """
        self.access(context)  # a missing key file is said before anything is done
        hosts = self.hosts(context)
        await self._check_way_to_store(context)
        return [Worker(name=name, where=str(hosts[name])) for name in context.workers]

    async def substitute(self, context: RunContext, name: str, lost: Worker) -> Worker | None:
        """Give a host that the scenario names beyond those of its workers, if one is left."""
        host = self.hosts(context).get(name)
        if host is None:
            current_observer().warn(f"{lost.name} is not replaced: no further host is named")
            return None
        return Worker(name=name, where=str(host))

    def hosts(self, context: RunContext) -> dict[str, Host]:
        """Return the host of each worker and of each substitute that there may be, by name."""
        hosts = [Host.from_text(text) for text in context.scenario.fleet.hosts]
        if len(set(hosts)) < len(hosts):
            raise FleetError("A host is named twice.", hint="Each worker needs one of its own.")
        if len(hosts) < len(context.workers):
            raise FleetError(
                f"The scenario asks for {len(context.workers)} workers and names "
                f"{len(hosts)} hosts.",
                hint="Name more with --host user@address:port, or set fleet.workers.",
            )
        spare = context.scenario.fleet.replace_lost_workers
        used = hosts if spare else hosts[: len(context.workers)]
        return {worker_name(number): host for number, host in enumerate(used, 1)}

    def access(self, context: RunContext) -> Access:
        """Return how to log in to the hosts."""
        return Access.of_scenario(context.scenario.fleet)

    async def deploy(self, context: RunContext, worker: Worker) -> None:
        """Install what an agent needs on a worker's host and start it; a failure is retried once.

        Raises FleetError with the host's own words.
        """
        host = Host.from_text(worker.where)
        began = time.monotonic()
        await self._forget(worker.name)
        for tries_left in reversed(range(TRIES)):
            try:
                await self._deploy(context, worker, host)
                self._tending[worker.name] = asyncio.create_task(self._tend(context, worker))
                break
            except FleetError as error:
                await self._forget(worker.name)
                if not tries_left:
                    raise
                current_observer().warn(f"{worker.name}: {error.message} It is tried again.")
        took_s = time.monotonic() - began
        current_observer().step("deploy", f"{worker.name} on {host} after {took_s:.1f} s")

    async def is_alive(self, context: RunContext, worker: Worker) -> bool:  # noqa: ARG002 - the base's
        """Say whether the agent runs; True as long as its host does not say otherwise."""
        return self._runs.get(worker.name, True)

    async def release(self, context: RunContext) -> list[str]:
        """End the run's agents on every host, bring their samples home, and tidy up there."""
        await self._forget_all()
        hosts = self.hosts(context)
        left = await asyncio.gather(
            *(self._release(context, name, host) for name, host in hosts.items())
        )
        return [*filter(None, left), *await self._ship_fetched(context)]

    async def agent_config(self, context: RunContext, worker: Worker) -> AgentConfig:
        """Return what the agent is told; spool and Chromium are the host's, and no key is in it."""
        return AgentConfig(
            run_id=context.run_id,
            attempt=context.attempt,
            worker=worker.name,
            store=without_keys(context.address),
            relay_url=context.relay_url,
            scenario=context.scenario.model_dump(mode="json", by_alias=True),
            spool=Path("spool"),
        )

    async def keep_supplied(self, context: RunContext, worker: Worker) -> None:
        """Renew a running agent's credentials when half of their time is over.

        Raises FleetError; the old ones then serve until the next try.
        """
        logins, name = self._logins_of(context), worker.name
        credentials, place = await logins.next_for(name), self._places.get(name)
        if credentials is None or place is None:
            return
        remote = self._remotes.get(name)
        if remote is None or not remote.is_open:
            host = Host.from_text(worker.where)
            remote = self._remotes[name] = await connect(host, self.access(context))
        await deployment.give_credentials(remote, place.folder, credentials)
        logins.handed_over(name)
        log.info("%s has new credentials for the store", name)

    async def _tend(self, context: RunContext, worker: Worker) -> None:
        """See to an agent until its release, beside the roll call and whatever that asks for.

        A host that answers slowly keeps nobody from the others. A substitute that stands ready
        needs its credentials as well, and one that was lost needs them to ship what it has.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look(context, worker)
            except Exception:
                # Whatever it is: the next look may find another answer, and no look is the end.
                log.exception("%s could not be seen to", worker.name)

    async def _look(self, context: RunContext, worker: Worker) -> None:
        """See to a running agent: its credentials, and whether it still runs."""
        name = worker.name
        try:
            await self.keep_supplied(context, worker)
        except FleetError as error:
            log.warning("%s keeps its credentials for the store: %s", name, error)
        remote, place = self._remotes.get(name), self._places.get(name)
        running: bool | None = None
        if remote is not None and remote.is_open and place is not None:
            running = await deployment.is_running(remote, place.folder)
        self._runs[name] = running is not False

    async def _check_way_to_store(self, context: RunContext) -> None:
        """Find out whether workers can be let into the store, before anything is touched."""
        await self._logins_of(context).next_for("")

    def _logins_of(self, context: RunContext) -> WorkerAccess:
        if self._logins is None:
            self._logins = access_of(context)
        return self._logins

    async def _deploy(self, context: RunContext, worker: Worker, host: Host) -> None:
        payload = await self._shared_payload(context)
        remote = self._remotes[worker.name] = await self._connect(context, host)
        _mark(context, worker.name).parent.mkdir(parents=True, exist_ok=True)
        _mark(context, worker.name).write_text(str(host), encoding="utf-8")
        place = await deployment.install(
            remote,
            payload,
            run_id=context.run_id,
            attempt=context.attempt,
            worker=worker.name,
        )
        config = await self.agent_config(context, worker)
        if payload.journey:
            config.scenario["journey"] = payload.journey.journey
        logins = self._logins_of(context)
        logins.forget(worker.name)
        credentials = await logins.next_for(worker.name)
        if credentials is not None:
            file = await deployment.give_credentials(remote, place.folder, credentials)
            store = config.store.model_copy(update={"credentials_file": Path(file)})
            config = config.model_copy(update={"store": store})
            logins.handed_over(worker.name)
        await deployment.start(remote, place, config)
        self._places[worker.name] = place

    async def _connect(self, context: RunContext, host: Host) -> Remote:
        return await connect(host, self.access(context))

    async def _shared_payload(self, context: RunContext) -> Payload:
        """Return what is copied to each host; it is built once."""
        if self._payload is None:
            self._payload = asyncio.create_task(
                asyncio.to_thread(
                    make_payload,
                    context.folder / f"attempt-{context.attempt}" / "wheel",
                    context.scenario,
                )
            )
        return await asyncio.shield(self._payload)

    async def _release(self, context: RunContext, name: str, host: Host) -> str:
        """Give one host back; return what hinders it."""
        if not self._touched(context, name):
            return ""
        try:
            async with await connect(host, self.access(context)) as remote:
                for folder in await deployment.stop_run(remote, context.run_id):
                    await self._bring_home(context, remote, folder)
                await deployment.remove(
                    remote,
                    context.run_id,
                    keep_installed=context.scenario.fleet.keep_installed,
                )
        except (RelayLoadError, OSError) as error:
            # A disk here that takes no spool must not keep other hosts from being given back.
            log.warning("%s: %s", name, error)
            said = error.message if isinstance(error, RelayLoadError) else str(error)
            return f"{name} ({said})"
        for mark in context.folder.glob(f"attempt-*/{name}/host"):
            mark.rename(mark.with_name("host-released"))
        return ""

    def _touched(self, context: RunContext, name: str) -> bool:
        return _was_touched(context, name)

    async def _bring_home(self, context: RunContext, remote: Remote, folder: str) -> None:
        """Fetch a spool that its agent could not ship; the release ships it from here."""
        attempt, worker = folder.rsplit("/", maxsplit=2)[-2:]
        current_observer().warn(f"{worker} could not ship all of its samples: they are fetched")
        home = context.folder / attempt / worker
        # One that an earlier release fetched is all there is: its agent had ended before.
        if not (home / "spool").is_dir():
            archive = home / "spool.tar"
            await deployment.fetch(remote, folder, archive)
            try:
                await asyncio.to_thread(unpack, archive, home)
            except (OSError, tarfile.TarError) as error:
                raise FleetError(f"{archive} cannot be unpacked: {error}") from error

    async def _ship_fetched(self, context: RunContext) -> list[str]:
        """Ship what was fetched and could not be shipped until now; name what still cannot."""
        left = []
        for home in await asyncio.to_thread(waiting_spools, context.folder):
            problem = await ship_here(context, home)
            if problem:
                current_observer().warn(f"samples of {home.name} stay in {home}: {problem}")
                left.append(f"samples of {home.name}, in {home} ({problem})")
        return left

    async def _forget_all(self) -> None:
        await asyncio.gather(*map(self._forget, {*self._remotes, *self._tending}))

    async def _forget(self, name: str) -> None:
        tending = self._tending.pop(name, None)
        if tending is not None:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
        remote = self._remotes.pop(name, None)
        self._places.pop(name, None)
        self._runs.pop(name, None)
        if remote is not None:
            await remote.close()


def _mark(context: RunContext, worker: str) -> Path:
    """Return the file that says that a worker's host may hold something of this run."""
    return context.folder / f"attempt-{context.attempt}" / worker / "host"


def _was_touched(context: RunContext, worker: str) -> bool:
    """Say whether a host may hold something of this run; unknown where the run's folder is not."""
    marks = list(context.folder.glob(f"attempt-*/{worker}/host"))
    return bool(marks) or not list(context.folder.glob("attempt-*/*/host*"))
