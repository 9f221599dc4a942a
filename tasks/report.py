"""Report: figures, verdict and page from the samples in the bucket."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from reports.build import build_report
from reports.summary import Summary
from tasks.artifacts import show_summary
from tasks.observation import current_observer
from tasks.run_context import RunContext


async def make_report(context: RunContext) -> Summary:
    """Build the report, in the bucket and in the run's folder."""
    return await asyncio.to_thread(
        build_report, context.store(), context.run_id, into=context.folder
    )


@task(name="report", cache_policy=NO_CACHE, persist_result=False, retries=1, timeout_seconds=900)
async def report(context: RunContext) -> Summary:
    """Make the report; say in Prefect's UI how the run went."""
    current_observer().step("report", "figures are computed from all samples")
    summary = await make_report(context)
    get_run_logger().info("%s, %s: %s", summary.verdict, summary.validity, context.folder)
    await show_summary(context, summary)
    return summary
