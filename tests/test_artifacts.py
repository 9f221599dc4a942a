from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from prefect.artifacts import Artifact, aupdate_progress_artifact
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import artifacts
from tasks.artifacts import phase_bar


@pytest.mark.filterwarnings("ignore:Artifact creation outside")
async def test_a_bar_comes_to_its_end_where_prefect_is_slow(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows how far its own phase came, though the next one has begun before it was taken."""
    taken = asyncio.Event()

    async def slowly(*given: Any, **named: Any) -> None:
        await asyncio.sleep(artifacts.LAST_UPDATE_WITHIN_S + 0.5)
        await aupdate_progress_artifact(*given, **named)
        taken.set()

    monkeypatch.setattr(artifacts, "WITHIN_S", 60.0)
    monkeypatch.setattr(artifacts, "aupdate_progress_artifact", slowly)
    share, phase = 0.0, f"sustained-{uuid4().hex[:8]}"
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        async with phase_bar("a-run", phase, lambda: share):
            share = 1.0
        share = 0.1  # of the next phase
        assert not taken.is_set()
        async with asyncio.timeout(90):
            await taken.wait()
        bar = await Artifact.aget(f"phase-{phase}")
    assert bar is not None
    assert bar.data == 100
