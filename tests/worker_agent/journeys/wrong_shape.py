"""Functions that are no operations."""

from playwright.async_api import Page


def plain(_page: Page, _user: object) -> None:
    pass


async def lonely(_page: Page) -> None:
    pass


not_callable = 7
