"""`openrpt watch` in a real browser: it follows a run, on a phone and for a screen reader, too."""

from pathlib import Path
from typing import Any

import pytest

from openrpt.report import watch
from openrpt.runs.metrics import append_metrics
from tests.helpers.fake_run import fake_run, train_row
from tests.helpers.serving import serving

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
PATIENCE = 120_000
"""Milliseconds that a test waits for anything: other programs may have the processor."""
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(watch, "_REST", 0.0)
    return fake_run(tmp_path / "a", steps=2)


def test_a_run_is_followed(browser: Any, run: Path) -> None:
    """A step that is written while the page is open shows, in the report's frame and the table."""
    said: list[str] = []
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(PATIENCE)
    with serving(run, fake_run(run.parent / "b")) as server:
        page, table = context.new_page(), context.new_page()
        for tab in (page, table):
            tab.on("console", lambda message: said.append(message.text))
            tab.on("pageerror", lambda error: said.append(str(error)))
        page.goto(server.url + "run/0")
        table.goto(server.url)
        frame = page.frame_locator("iframe:not(.coming)")
        frame.get_by_text("2 steps of train").first.wait_for()
        table.locator("tbody, table").get_by_text("train 2").first.wait_for()
        assert table.locator("th[scope=row]").count() == 2
        append_metrics(run / "metrics.jsonl", train_row(3))
        frame.get_by_text("3 steps of train").first.wait_for()
        table.get_by_text("train 3").first.wait_for()
        context.close()
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_watch_for_everybody(
    browser: Any, run: Path, scheme: str, viewport: dict[str, int]
) -> None:
    """axe, by WCAG 2.1 A and AA; nothing wider than the window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    with serving(run) as server:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_text("train 2").first.wait_for()
        found = axe.run(page, options=WCAG).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name=run.name).first.click()  # by keyboard as by mouse: a link
        report = page.frame_locator("iframe:not(.coming)")
        report.get_by_text("2 steps of train").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()
