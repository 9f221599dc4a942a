"""A user who says good-bye: the teardown raises what it was given, to be found in the samples."""

from playwright.async_api import Page

from worker_agent.journey import User


async def edit(_page: Page, _user: User) -> None:
    pass


async def teardown(_page: Page, user: User) -> None:
    raise RuntimeError(f"good-bye from {user.connection} on {user.document_id}")
