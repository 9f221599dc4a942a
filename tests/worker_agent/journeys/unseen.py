"""An edit that no other user ever sees."""

from playwright.async_api import Page

from worker_agent.journey import User, shows


def token(user: User) -> str:
    return f"edit-{user.edit}"


async def edit(_page: Page, _user: User) -> None:
    pass


async def observe(page: Page, _user: User, token: str) -> None:
    await shows(page, f"#{token}")
