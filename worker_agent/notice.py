"""The notice that a rented machine is about to be taken away: its metadata service says so.

Spot machines are told two minutes ahead, under `spot/instance-action`. Only the second version
of the service is spoken, which wants a token for each question.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

ANSWERS_WITHIN_S = 2.0
TOKEN_S = 300
NO_TIME_GIVEN_S = 120.0
_NOT_THERE, _NO_TOKEN = 404, 401


@dataclass(frozen=True)
class Notice:
    """Somebody takes this machine: what will be done with it, and when, by the wall clock."""

    action: str
    at_us: int

    @property
    def reason(self) -> str:
        """One sentence for a status."""
        at = dt.datetime.fromtimestamp(self.at_us / 1e6, dt.UTC)
        return f"EC2 takes this spot machine back at {at:%H:%M:%S} UTC ({self.action})"


class Metadata:
    """A machine's metadata service at `url`, such as http://169.254.169.254."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._token = ""
        self._token_ends = 0.0
        # What a proxy says of its own machine is of no use here.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def notice(self) -> Notice | None:
        """Return the notice, if there is one. Raises OSError when the service does not answer."""
        if time.monotonic() >= self._token_ends:
            self._renew_token()
        try:
            said = self._ask("GET", "meta-data/spot/instance-action", token=self._token)
        except urllib.error.HTTPError as error:
            if error.code == _NO_TOKEN:
                self._token_ends = 0.0
            if error.code == _NOT_THERE:
                return None
            raise
        return notice_of(said)

    def _renew_token(self) -> None:
        self._token = self._ask("PUT", "api/token", lasts_s=TOKEN_S)
        self._token_ends = time.monotonic() + TOKEN_S / 2

    def _ask(self, method: str, path: str, *, token: str = "", lasts_s: int = 0) -> str:
        request = urllib.request.Request(f"{self._url}/latest/{path}", method=method)  # noqa: S310 - from the agent's config only
        if token:
            request.add_header("X-aws-ec2-metadata-token", token)
        if lasts_s:
            request.add_header("X-aws-ec2-metadata-token-ttl-seconds", str(lasts_s))
        with self._open(request, timeout=ANSWERS_WITHIN_S) as answer:
            text: str = answer.read().decode()
        return text


def notice_of(said: str) -> Notice:
    """Read `{"action": "terminate", "time": "2030-01-01T10:00:00Z"}`.

    Anything else is a notice too, as there is none without a reason; two minutes are assumed.
    """
    told: Any = {}
    try:
        told = json.loads(said)
        at = dt.datetime.fromisoformat(str(told["time"]))
        if at.tzinfo is None:
            at = at.replace(tzinfo=dt.UTC)
        at_us = round(at.timestamp() * 1e6)
    except (ValueError, KeyError, TypeError):
        log.warning("a notice that cannot be read: %r", said)
        at_us = round((time.time() + NO_TIME_GIVEN_S) * 1e6)
    action = told.get("action") if isinstance(told, dict) else None
    return Notice(action=str(action or "no action named"), at_us=at_us)


async def next_notice(url: str | None, *, every_s: float) -> Notice:
    """Return the notice as soon as there is one; without a `url` it never comes."""
    if url is None:
        await asyncio.Event().wait()
    metadata = Metadata(url or "")
    silent = False
    while True:
        try:
            notice = await asyncio.to_thread(metadata.notice)
        except (OSError, ValueError) as error:
            if not silent:
                log.warning("the metadata service at %s does not answer: %s", url, error)
            silent = True
        else:
            silent = False
            if notice is not None:
                return notice
        await asyncio.sleep(every_s)
