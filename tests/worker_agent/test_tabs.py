from __future__ import annotations

import json
from typing import Any

import pytest

from run_store.errors import BrowserError
from worker_agent import tabs
from worker_agent.tabs import NETWORK_CHANGED, Tab


class Chromium:
    """Answers a tab as Chromium does; a page loads once the `errors` are used up."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        self.tab = Tab(self, "target", "session")  # type: ignore[arg-type]  # all that it asks for

    async def send(self, _method: str, **given: Any) -> None:
        """Answer what is asked of the tab."""
        asked = json.loads(given["message"])
        result: dict[str, Any] = {}
        if asked["method"] == "Page.navigate":
            if self.errors:
                result = {"errorText": self.errors.pop(0)}
            else:
                self.tab.hear({"method": "Page.loadEventFired"})
        self.tab.hear({"id": asked["id"], "result": result})


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabs, "AGAIN_AFTER_S", (0.01, 0.01))


async def test_a_page_is_loaded_again_when_the_machines_network_changed() -> None:
    """An interface that comes or goes is no reason to give a worker up."""
    chromium = Chromium(NETWORK_CHANGED, NETWORK_CHANGED)
    await chromium.tab.load("http://127.0.0.1:1/")
    assert chromium.errors == []


@pytest.mark.parametrize("errors", [["net::ERR_CONNECTION_REFUSED"], [NETWORK_CHANGED] * 3])
async def test_a_page_that_does_not_load_says_why(errors: list[str]) -> None:
    """Other errors are told at once, and this one when it lasts."""
    with pytest.raises(BrowserError, match=errors[-1]):
        await Chromium(*errors).tab.load("http://127.0.0.1:1/")
