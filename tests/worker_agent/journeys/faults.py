"""Operations that go wrong, each in its own way; the page is blank."""

import asyncio

from playwright.async_api import Page

from worker_agent.journey import User


async def raises(_page: Page, user: User) -> None:
    if user.edit == 0:
        raise ValueError("no such button")
    raise SystemExit(3)


async def hangs(_page: Page, _user: User) -> None:
    await asyncio.Event().wait()


async def ignores_its_end(_page: Page, _user: User) -> None:
    while True:
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            continue
        return


async def closes(page: Page, user: User) -> None:
    if user.edit == 0:
        await page.close()


async def crashes(page: Page, user: User) -> None:
    if user.edit == 0:
        await page.goto("chrome://crash")


async def is_slow(_page: Page, _user: User) -> None:
    await asyncio.sleep(0.4)


async def returns(_page: Page, user: User) -> str:
    return f"edit {user.edit}"


async def observe(page: Page, user: User, token: str) -> None:
    if token != f"edit {user.edit}" or page.is_closed():
        raise AssertionError(token)
