"""A journey to learn from: users of a small page who share a counter through the relay.

`counter.toml` beside this file is a scenario that makes it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import urlencode

from playwright.async_api import Page

from worker_agent.assets import Assets
from worker_agent.journey import User, shows


@functools.cache
def site() -> str:
    """Return the address of this example's page, served here; a page of your own has one."""
    assets = Assets(Path(__file__).parent / "dist")
    assets.start()
    return assets.url


async def setup(page: Page, user: User) -> None:
    """Open the page and wait until it is in sync with the relay."""
    query = urlencode({"relay": user.relay_url, "document": user.document_id})
    await page.goto(f"{site()}counter.html?{query}")
    await page.get_by_text("connected", exact=True).wait_for()


def token(user: User) -> str:
    """Name the edit that this user is about to make, as other users will see it."""
    return f"user {user.connection}, edit {user.edit}"


async def edit(page: Page, user: User) -> None:
    """Sign and click; the click is acknowledged when the page shows it as saved."""
    await page.get_by_label("Your name").fill(token(user))
    await page.get_by_role("button", name="Add one").click()
    await shows(page, f'li.saved[data-who="{token(user)}"]')


async def observe(page: Page, _user: User, token: str) -> None:
    """Wait until another user's click is in this user's list."""
    await shows(page, f'li[data-who="{token}"]')


async def state(page: Page, _user: User) -> str:
    """Return what the page shows: on all pages the same, once nobody clicks."""
    return await page.locator("#count").inner_text()
