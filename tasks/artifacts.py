"""What a run leaves in Prefect's UI: a bar for each phase, a table and a page at the end.

None of it may hold up a run or fail it: where Prefect's API is away, it is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from reports.summary import Summary
from tasks.run_context import RunContext

log = logging.getLogger(__name__)
T = TypeVar("T")

WITHIN_S = 10.0
UPDATE_EVERY_S = 5.0
LAST_UPDATE_WITHIN_S = 1.0
_bars: set[asyncio.Task[None]] = set()
"""What keeps the bars, until a slow Prefect has taken the last update: nothing else holds it."""


@contextlib.asynccontextmanager
async def phase_bar(
    run_id: str, phase: str, share_done: Callable[[], float]
) -> AsyncIterator[None]:
    """Show a phase's progress for as long as an `async with`, and behind it how far it came.

    The next phase waits for no bar: one that Prefect is slow to take comes to its end beside it.
    """
    over: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    bar = asyncio.create_task(_keep_bar(run_id, phase, share_done, over))
    _bars.add(bar)
    bar.add_done_callback(_bars.discard)
    try:
        yield
    finally:
        over.set_result(share_done())
        await asyncio.wait([bar], timeout=LAST_UPDATE_WITHIN_S)


async def show_summary(context: RunContext, summary: Summary) -> None:
    """Show objectives as a table, and the verdict with the report's address as a page."""
    rows = [
        {"objective": row.text, "wanted": row.wanted, "got": row.got, "met": row.met}
        for row in summary.objectives
    ]
    await _if_possible(
        acreate_table_artifact(rows, key="objectives", description=f"Run {context.run_id}")
    )
    await _if_possible(
        acreate_markdown_artifact(
            _page(context, summary), key="report", description=f"Run {context.run_id}"
        )
    )


def _page(context: RunContext, summary: Summary) -> str:
    page = (context.folder / "report.html").resolve()
    reasons = "".join(f"- {reason}\n" for reason in summary.validity_reasons)
    return (
        f"# {summary.verdict} ({summary.validity})\n\n{reasons}\n"
        f"Report: [{page}]({page.as_uri()}), and in the store under "
        f"`{context.address.url}/{context.layout.report()}`\n"
    )


async def _keep_bar(
    run_id: str, phase: str, share_done: Callable[[], float], over: asyncio.Future[float]
) -> None:
    """Move a bar until the phase is `over`, which says how much of it was done by then."""
    bar: UUID | None = await _if_possible(
        acreate_progress_artifact(progress=0.0, key=f"phase-{phase}", description=f"Run {run_id}")
    )
    while bar is not None:
        await asyncio.wait([over], timeout=UPDATE_EVERY_S)
        is_over = over.done()
        share = over.result() if is_over else share_done()
        await _if_possible(aupdate_progress_artifact(bar, progress=share * 100))
        if is_over:
            return


async def _if_possible(shown: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await shown
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client meets, the run goes on
        log.warning("Prefect's UI does not show this: %s", str(error) or type(error).__name__)
        return None
