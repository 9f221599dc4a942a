from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from reports.build import summarise
from reports.engine import open_run
from reports.page import render
from reports.wording import number, run_time, share
from run_store.store import Store
from tests.reports.synthetic import RunWriter, SyntheticPhase, healthy_run
from worker_agent.chromium import find_chromium

pytestmark = pytest.mark.browser
LARGEST_BYTES = 2_000_000
HOSTILE = "</script><img src=x onerror=\"console.error('ran')\"> & <b>bold</b>"
TIMED: tuple[str, ...] = ("connections", "edits", "acknowledgement", "delivery", "errors", "relay")
TIMED += ("worker-cpu", "worker-memory", "lateness", "map-delivery", "map-acknowledgement")
ALL_PLOTS = (*TIMED, "spread-delivery", "spread-acknowledgement")

INKED = """key => [...document.querySelectorAll(`#plot-${key} canvas`)].reduce((most, canvas) => {
    const { width, height } = canvas
    const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data
    const colours = new Set()
    for (let i = 0; i < pixels.length; i += 4) {
        const [red, green, blue, alpha] = pixels.subarray(i, i + 4)
        if (alpha > 200) colours.add((red << 16) | (green << 8) | blue)
    }
    return Math.max(most, colours.size)
}, 0)"""
FIRST_TIME = """key => {
    document.querySelector(`details[data-of="${key}"]`).open = false
    return new Promise((done) => setTimeout(() => {
        const details = document.querySelector(`details[data-of="${key}"]`)
        details.addEventListener('toggle', () => setTimeout(() =>
            done(details.querySelector('tbody td').textContent)), { once: true })
        details.open = true
    }))
}"""


def page_of(store: Store, run: RunWriter, folder: Path) -> Path:
    """Write a run to the store, render its page, and return the page's file."""
    run.write(store)
    with open_run(store, run.run_id) as database:
        body = render(database, summarise(database))
    file = folder / f"{run.run_id}.html"
    file.write_bytes(body)
    return file


def with_errors(run: RunWriter, count: int, phase: str = "sustained") -> RunWriter:
    """Add errors, each with a message of its own that holds HTML."""
    letters = np.random.default_rng(1).integers(97, 123, (count, 12)).astype(np.uint8)
    words = [bytes(row).decode() for row in letters]
    run.samples["errors", run.label(phase), run.workers[0]] = {
        "at_us": run.start_us(phase) + np.arange(count) * 20_000_000 // max(count, 1),
        "type": [f"kind <{i % 12}>" for i in range(count)],
        "message": [f"{word} {HOSTILE}" for word in words],
        "connection": np.arange(count) % 8,
        "weight": np.ones(count),
    }
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(find_chromium()), args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def busy_page(store: Store, artefacts: Path) -> Path:
    """The page of a run with everything in it, errors with HTML among it."""
    return page_of(store, with_errors(healthy_run("page-busy"), 40), artefacts)


class Opened:
    """A page opened from disk with the network off, and everything that it complained of."""

    def __init__(self, browser: Browser, file: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-ready]", timeout=60_000)

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("file:")] == []
        assert len(self.requests) == 1


def test_every_chart_draws(browser: Browser, busy_page: Path) -> None:
    """Each chart of a full run shows axes, text and its series, with the network off."""
    with Opened(browser, busy_page) as page:
        colours = {key: page.evaluate(INKED, key) for key in ALL_PLOTS}
    assert {key: count for key, count in colours.items() if count < 10} == {}


def test_zooming_one_chart_moves_the_others(browser: Browser, busy_page: Path) -> None:
    """Dragging across one chart zooms all to the same stretch, and a button shows all again."""
    with Opened(browser, busy_page, viewport={"width": 1000, "height": 900}) as page:
        before = {key: page.evaluate(FIRST_TIME, key) for key in ("delivery", "relay")}
        plot = page.locator("#plot-connections .u-over")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 60, steps=4)
        page.mouse.up()
        zoomed = {key: page.evaluate(FIRST_TIME, key) for key in ("delivery", "relay")}
        page.locator("[data-reset]").click()
        after = {key: page.evaluate(FIRST_TIME, key) for key in ("delivery", "relay")}
    assert set(before.values()) == {"00:00"}
    assert len(set(zoomed.values())) == 1
    assert zoomed["relay"] > "00:15"
    assert after == before


def test_looks(browser: Browser, busy_page: Path, artefacts: Path) -> None:
    """The page fits 400 px, follows the dark scheme, can be switched, and prints in light."""
    background = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    looks: dict[str, dict[str, Any]] = {
        "light": {"color_scheme": "light"},
        "dark": {"color_scheme": "dark"},
        "narrow": {"viewport": {"width": 400, "height": 800}},
    }
    for name, options in looks.items():
        with Opened(browser, busy_page, **options) as page:
            seen[name] = page.evaluate(background)
            page.screenshot(path=artefacts / f"{name}.png", full_page=True)
            if name == "narrow":
                assert page.evaluate("document.documentElement.scrollWidth") == 400
            if name == "dark":
                page.emulate_media(media="print")
                assert page.evaluate(background) == "rgb(255, 255, 255)"
                page.emulate_media(media="screen")
                page.locator("#theme").click()
                assert page.evaluate(background) == seen["light"]
    assert seen["dark"] != seen["light"]


def test_text_is_escaped(browser: Browser, busy_page: Path) -> None:
    """HTML in an error is shown as text, in the table and in the chart's legend."""
    with Opened(browser, busy_page) as page:
        assert HOSTILE in page.locator("section[aria-labelledby=errors]").inner_text()
        assert page.locator("img").count() == 0
        assert "kind <3>" in page.locator("#plot-errors .u-legend").inner_text()


def test_many_distinct_errors_stay_small(store: Store, browser: Browser, artefacts: Path) -> None:
    """100 000 distinct messages leave a page below 2 MB that says how many there are."""
    file = page_of(store, with_errors(healthy_run("page-errors"), 100_000), artefacts)
    assert file.stat().st_size < LARGEST_BYTES
    with Opened(browser, file) as page:
        text = page.locator("section[aria-labelledby=errors]").inner_text()
    assert "50 most frequent of" in text


def test_run_without_samples(store: Store, browser: Browser, artefacts: Path) -> None:
    """A run that failed before its first sample says so, and why, instead of drawing nothing."""
    run = healthy_run("page-nothing")
    run.samples.clear()
    run.incomplete = tuple(phase.name for phase in run.phases)
    run.record_changes = {"problems": ["deploy failed: no host answered"], "state": "failed"}
    with Opened(browser, page_of(store, run, artefacts)) as page:
        assert page.locator("#verdict").inner_text().startswith("Not measured")
        assert "without a single sample" in page.locator("h1").inner_text()
        assert "no host answered" in page.locator("h1").inner_text()
        assert page.locator("canvas").count() == 0


@pytest.mark.parametrize("kind", ["relay", "edits", "deliveries", "resources"])
def test_a_missing_kind_is_named(
    kind: str, store: Store, browser: Browser, artefacts: Path
) -> None:
    """Without one kind of samples its charts say what is missing and the others still draw."""
    run = healthy_run(f"page-without-{kind}")
    run.samples = {key: columns for key, columns in run.samples.items() if key[0] != kind}
    gone = {"relay": "relay", "edits": "edits", "deliveries": "delivery"}
    missing = gone.get(kind, "worker-cpu")
    with Opened(browser, page_of(store, run, artefacts)) as page:
        figure = page.locator(f"figure[aria-labelledby=title-{missing}]")
        assert figure.locator(".none").count() == 1
        assert figure.locator("canvas").count() == 0
        assert page.locator("canvas").count() > 3


def test_long_run_is_thinned(store: Store, artefacts: Path) -> None:
    """Three hours are drawn in at most 1440 points, which keep a spike of one second."""
    phases = (SyntheticPhase("sustained", "sustained", 10_800, 20, 1),)
    run = healthy_run("page-long", phases=phases, workers=2)

    def spike(columns: dict[str, Any]) -> None:
        columns["memory_rss_mb"][5_000] = 9_999.0

    run.change("relay", "sustained", spike)
    file = page_of(store, run, artefacts)
    found = re.search(r'id="data">(.*?)</script>', file.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    data = json.loads(found[1])
    relay = next(chart for chart in data["charts"] if chart["key"] == "relay")
    assert 700 < len(data["at_s"]) <= 1440
    assert max(relay["series"][0]["values"]) == 9_999
    assert file.stat().st_size < LARGEST_BYTES


@pytest.mark.parametrize(
    ("wrote", "expected"),
    [
        (number(None), "\u2013"),
        (number(0), "0"),
        (number(1234.5), "1,234"),
        (number(0.0421), "0.042"),
        (number(12.34, "ms"), "12.3\u202fms"),
        (share(0.00001), "<\u202f0.01\u202f%"),
        (run_time(3723.4), "1:02:03"),
        (run_time(59.7), "01:00"),
    ],
)
def test_figures_are_written_with_units(wrote: str, expected: str) -> None:
    """Figures have as many digits as say something, and their unit."""
    assert wrote == expected
