"""A page that never finishes loading: its server takes the connection and says nothing."""

import socket

from playwright.async_api import Page

from worker_agent.journey import User

SILENT = socket.create_server(("127.0.0.1", 0))


async def setup(page: Page, _user: User) -> None:
    await page.goto(f"http://127.0.0.1:{SILENT.getsockname()[1]}/")


async def edit(_page: Page, _user: User) -> None:
    pass
