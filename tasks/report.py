"""Report: figures, verdict and page from the samples in the bucket."""

from __future__ import annotations

import asyncio

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from reports.build import build_report
from reports.summary import Summary
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
    await _show(context, summary)
    return summary


async def _show(context: RunContext, summary: Summary) -> None:
    rows = [
        {"objective": row.text, "wanted": row.wanted, "got": row.got, "met": row.met}
        for row in summary.objectives
    ]
    await acreate_table_artifact(rows, key="objectives", description=f"Run {context.run_id}")
    page = (context.folder / "report.html").resolve()
    reasons = "\n".join(f"- {reason}" for reason in summary.validity_reasons)
    await acreate_markdown_artifact(
        f"# {summary.verdict} ({summary.validity})\n\n{reasons}\n\n"
        f"Report: [{page}]({page.as_uri()}), and in the store under "
        f"`{context.address.url}/{context.layout.report()}`\n",
        key="report",
        description=f"Run {context.run_id}",
    )
