"""A user who never gets in: the setup raises."""

from playwright.async_api import Page

from worker_agent.journey import User


async def setup(_page: Page, _user: User) -> None:
    raise PermissionError("the password is wrong")


async def edit(_page: Page, _user: User) -> None:
    pass
