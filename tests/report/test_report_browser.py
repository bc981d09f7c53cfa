"""The report in a real browser: what it draws, and what a reader can do with it."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from openrpt.evaluation.records import record
from openrpt.report.page import write_report
from tests.helpers.report_run import (
    DEVELOPMENT,
    FIRST,
    HELDOUT,
    HOSTILE,
    POSITIONS,
    TEXTS,
    WITH_HOSTILE,
    WITH_SCRIPTS,
    evaluation_result,
    fill,
    made_up_run,
    tokens_of,
)

DESKTOP = {"width": 1280, "height": 900}
FACE = "😀".encode()
PHONE = {"width": 390, "height": 844}
PATIENCE = 120_000
"""Milliseconds that a test waits for anything: other programs may have the processor."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a finished run's report, over which another run's curves are drawn."""
    folder = tmp_path_factory.mktemp("browser")
    other = fill(made_up_run(folder / "other"), steps=4)
    return write_report(fill(made_up_run(folder / "demo")), [other]).as_uri()


class Tab:
    """A page of the browser; whatever it says on the console or asks of a network is kept."""

    def __init__(self, browser: Any, viewport: dict[str, int], scheme: str) -> None:
        self.context = browser.new_context(
            viewport=viewport, color_scheme=scheme, accept_downloads=True
        )
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str, hash: str = "") -> "Tab":
        self.page.goto("about:blank")
        self.page.goto(address + hash)
        self.page.wait_for_selector("#inspector[data-ready]")
        return self

    def part(self, name: str) -> Any:
        return self.page.locator(f'#inspector [data-part="{name}"]')

    def show(self, document_id: str) -> None:
        """Chooses a document, and waits until it is there."""
        ids = self.page.evaluate(
            "(async () => (await block('data-index')).documents.map((one) => one.id))()"
        )
        self.choose(document=str(ids.index(document_id)))
        self.until_shown(document_id)

    def until_shown(self, document_id: str) -> None:
        self.page.wait_for_function(
            "id => document.querySelector('[data-part=about]').textContent.includes(id)",
            arg=document_id,
        )

    def choose(self, **values: str) -> None:
        for name, value in values.items():
            self.part(name).select_option(value)

    @property
    def text(self) -> str:
        text = self.page.locator("#t0").locator("xpath=../..").text_content()  # not laid out, too
        return str(text)

    @property
    def hits(self) -> list[int]:
        return self.page.eval_on_selector_all(
            "#inspector .pane:first-child .hit", "hits => hits.map(hit => Number(hit.dataset.i))"
        )

    def panel(self) -> str:
        """What is said of the selected token, and what was sampled there."""
        return f"{self.part('panel').inner_text()}\n{self.part('rollouts').inner_text()}"


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    tab = Tab(browser, DESKTOP, "light")
    yield tab.open(address)
    tab.context.close()
    assert tab.said == []
    assert [url for url in tab.asked if url.startswith(("http", "ws"))] == []


def draw_all(page: Any) -> int:
    """Scrolls to each chart and waits for it; how many there are."""
    plots = page.locator(".plot")
    for number in range(plots.count()):
        plots.nth(number).scroll_into_view_if_needed()
        page.wait_for_function(
            "n => document.querySelectorAll('.plot')[n].dataset.drawn", arg=number
        )
    return plots.count()


def test_every_chart_is_drawn(tab: Tab) -> None:
    count = draw_all(tab.page)
    assert count > 20
    empty = tab.page.evaluate(
        """() => [...document.querySelectorAll('.plot canvas')].filter((canvas) => {
          const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(pixels.data.buffer)).size < 5;
        }).length"""
    )
    assert (tab.page.locator(".plot canvas").count(), empty) == (count, 0)


def canvas_of(tab: Tab, title: str) -> Any:
    """The canvas of a chart, scrolled into view."""
    figure = tab.page.locator(f'figure:has(h4:text-is("{title}"))')
    figure.scroll_into_view_if_needed()
    figure.locator(".plot[data-drawn]").wait_for()
    return figure.locator("canvas")


def chart_rows(tab: Tab, title: str, **settings: object) -> dict[str, Any]:
    """What the page gives to Vega-Lite for a chart."""
    return tab.page.evaluate(
        """async ([title, changed]) => {
          const data = await block("data-curves");
          const id = [...document.querySelectorAll("figure")]
            .find((one) => one.querySelector("h4").textContent === title)
            .querySelector(".plot").id;
          const chart = data.charts.find((one) => one.id === id);
          const settings = { smooth: 0, log: false, axis: "step", from: "", to: "", ...changed };
          const spec = chartSpec(chart, data.runs, settings);
          return { ...spec.datasets, layers: (spec.layer ?? []).map((layer) => layer.name),
                   scales: (spec.layer ?? [spec]).map((layer) => layer.encoding.y?.scale ?? {}),
                   domain: (spec.layer ?? [spec])[0].encoding.x.scale.domain ?? null };
        }""",
        [title, settings],
    )


def test_curves_hold_the_metrics(tab: Tab) -> None:
    plain = chart_rows(tab, "Reward")
    assert [row["step"] for row in plain["rows"] if row["run"] == "demo"] == [1, 2, 3, 4, 5, 6]
    assert len([row for row in plain["rows"] if row["run"] == "other"]) == 4
    assert [warning["step"] for warning in plain["warnings"]] == [6]
    assert {"line", "dots", "warnings", "rule"} <= set(plain["layers"])
    assert "raw" not in plain["layers"]
    values = [row["raw"] for row in plain["rows"] if row["run"] == "demo"]

    smooth = chart_rows(tab, "Reward", smooth=0.5)
    weights = [[0.5 ** (i - k + 1) for k in range(i + 1)] for i in range(len(values))]
    expected = [sum(w * v for w, v in zip(row, values, strict=False)) / sum(row) for row in weights]
    found = [row["value"] for row in smooth["rows"] if row["run"] == "demo"]
    assert found == pytest.approx(expected)
    assert "raw" in smooth["layers"]

    assert "log" in {scale.get("type") for scale in chart_rows(tab, "Reward", log=True)["scales"]}
    hours = chart_rows(tab, "Reward", axis="hours")["rows"]
    assert [row["x"] for row in hours][:2] == pytest.approx([15 / 3600, 30 / 3600])
    assert chart_rows(tab, "Reward", **{"from": "2", "to": "4"})["domain"] == [2, 4]
    band = chart_rows(tab, "Development accuracy")["rows"][0]
    assert band["low"] < band["value"] < band["high"]


def test_curve_controls_redraw(tab: Tab) -> None:
    before = canvas_of(tab, "Reward").evaluate("canvas => canvas.toDataURL()")
    tab.page.locator('[data-chart="smooth"]').fill("0.9")
    assert tab.page.locator('[data-part="smooth-value"]').inner_text() == "0.9"
    canvas_of(tab, "Reward")  # which is drawn where it can be seen
    tab.page.wait_for_function(  # other charts are redrawn, too, one after another
        """([title, before]) => {
          const canvas = [...document.querySelectorAll("figure")]
            .find((one) => one.querySelector("h4")?.textContent === title).querySelector("canvas");
          return canvas && canvas.toDataURL() !== before;
        }""",
        arg=["Reward", before],
    )


def test_hover_shows_the_values(tab: Tab) -> None:
    from playwright.sync_api import TimeoutError

    canvas = canvas_of(tab, "Flat groups")
    tooltip = tab.page.locator("#vg-tooltip-element.visible")
    for _ in range(100):  # charts that are drawn meanwhile may move this one from under the mouse
        canvas.hover()
        with suppress(TimeoutError):
            tooltip.wait_for(timeout=2_000)
            break
    assert "step" in tooltip.inner_text() and "%" in tooltip.inner_text()


def test_a_click_shows_the_rollouts(tab: Tab) -> None:
    tab.show(FIRST)
    tab.page.locator(f"#t{POSITIONS[0]}").click()
    shown = tab.panel()
    truth = tokens_of(TEXTS[FIRST][1])[POSITIONS[0]].decode().replace(" ", "␣")
    assert f"token {POSITIONS[0]}" in shown and truth in shown
    assert "Step 6 ✓ 3 of 5 right" in shown
    assert "up to the end of token 2" in shown and "no prediction" in shown
    assert "cut by its budget" in shown and "+1.50" in shown and "−0.50" in shown
    assert "40 %" in shown and "20 %" in shown  # of standard prediction's most probable
    assert "50 %" in shown and "25 %" in shown  # of the candidates of the thought
    chips = tab.part("panel").locator("dl").first.locator("dd").nth(1).locator(".token")
    tokens = tokens_of(TEXTS[FIRST][1])[POSITIONS[0] : POSITIONS[0] + 12]
    shown_tokens = [token.decode().replace(" ", "␣").replace("\n", "⏎") for token in tokens]
    assert chips.all_inner_texts() == shown_tokens
    table = tab.part("rollouts").locator(".rollouts")
    assert table.locator(".forced").count() > 0  # forced tokens are marked
    assert table.locator(".amount-4").first.get_attribute("title") == "p 0.050"  # e⁻³
    assert "⟨F0⟩⟨9F⟩" in table.inner_text()  # a half character


def test_stepping_through_training(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={FIRST[:8]}&token={POSITIONS[0]}")
    assert "Step 6 ✓ 3 of 5 right" in tab.panel()
    tab.page.get_by_role("button", name="step 1 · 2/5").click()
    # What was pressed stays there, and keeps the focus.
    assert tab.page.evaluate("document.activeElement.ariaPressed") == "true"
    assert "Step 1 ✓ 2 of 5 right" in tab.panel()
    tab.choose(view="step:2", other="step:5")
    assert "Step 2 ✓ 2 of 5 right" in tab.panel() and "Step 5 ✓ 3 of 5 right" in tab.panel()
    tab.page.locator("#t0").locator("xpath=../..").focus()
    tab.page.keyboard.press(".")
    assert "Step 3 ✓ 2 of 5 right" in tab.panel()
    tab.choose(view="step:6", other="", color="change")
    here = tab.page.locator(f"#t{POSITIONS[0]}")
    assert "verdict-3" in (here.get_attribute("class") or "")  # better since step 1


def test_two_models_side_by_side(tab: Tab) -> None:
    tab.show(HELDOUT)
    tab.choose(color="rate", view="model:trained", other="model:start")
    assert tab.part("title").inner_text() == "model: trained"
    assert tab.part("title-other").inner_text() == "model: start"
    assert tab.page.locator("#inspector .pane").nth(1).locator(".verdict-0").count() == 12
    tab.choose(only="became-right")
    right = tab.page.locator("#inspector .pane").first.locator(".verdict-4").count()
    assert len(tab.hits) == right > 0
    tab.part("next").click()
    panel = tab.panel()
    assert "Model: trained ✓ 1 of 1 right" in panel and "Model: start ✗ 0 of 1 right" in panel
    assert panel.count("thought and answer") == 2 and "advantage" not in panel
    tab.page.get_by_role("button", name="warmup ·").click()
    assert "Model: warmup" in tab.panel() and "Model: trained" not in tab.panel()
    assert "group=model%3Awarmup" in tab.page.url


def test_the_same_position_at_every_evaluation_of_training(tab: Tab, address: str) -> None:
    """Development documents: evaluated after step 3 and 6, right from step 6 on."""
    tab.open(address, f"#document={DEVELOPMENT}&token={POSITIONS[1]}")
    assert tab.part("view").input_value() == "step:6"
    assert "Step 6 (development) ✓ 1 of 1 right" in tab.panel()
    tab.choose(other="step:3")
    assert "Step 3 (development) ✗ 0 of 1 right" in tab.panel()
    tab.choose(only="became-right")
    assert tab.hits == [POSITIONS[1]]


def test_a_position_that_was_sampled_often_has_a_slider(tab: Tab) -> None:
    """Drawn from a group of its own: by keyboard, and without losing the slider."""
    tab.show(FIRST)
    tab.page.locator(f"#t{POSITIONS[0]}").click()
    at = tab.page.evaluate(
        """async () => {
          const doc = await block(`data-${document.querySelector("[data-part=document]").value}`);
          const groups = doc.groupsAt.get(5);
          const { view } = groups[0];
          for (let step = 100; step < 110; step++)
            groups.push({ ...groups[0], step, view: `step:${step}` });
          const panel = document.querySelector("[data-part=panel]");
          panel.place = null;
          showPanel(panel, document.querySelector("[data-part=rollouts]"), doc, 5);
          return groups.length;
        }"""
    )
    slider = tab.part("rollouts").get_by_role("slider")
    assert f"Sampled {at} times: step 6 · 3/5" in tab.panel()
    slider.focus()
    slider.press("End")
    slider.press("ArrowLeft")
    assert "step 108 · 2/5" in tab.panel() and "Step 108 ✓" in tab.panel()
    assert tab.page.evaluate("document.activeElement.type") == "range"
    assert slider.get_attribute("aria-valuetext") == "step 108 · 2/5"


def test_colours_and_filters(tab: Tab) -> None:
    tab.show(FIRST)
    for color in ("entropy", "difficulty", "surprise", "ntp", "rate", "change"):
        tab.choose(color=color)
        assert (
            tab.page.locator(
                "#inspector .pane:first-child [class*=amount-],"
                "#inspector .pane:first-child [class*=verdict-]"
            ).count()
            > 0
        )
    tab.choose(only="sampled")
    assert tab.hits == list(POSITIONS)
    tab.choose(only="", kind="number")
    tokens = tokens_of(TEXTS[FIRST][1])
    assert tab.hits == [i for i, token in enumerate(tokens) if token.strip().isdigit()]
    tab.choose(kind="", band="3")
    entropies = [2.6 * i / (len(tokens) - 1) for i in range(len(tokens))]
    assert tab.hits == [i for i, entropy in enumerate(entropies) if round(entropy, 2) > 1.5]
    tab.choose(band="")
    tab.part("find").fill("x + y")
    found = TEXTS[FIRST][1].count("x + y")
    assert f"{len(tab.hits)} of {len(tokens)} tokens match" in tab.part("count").inner_text()
    assert found == 4 and sum(tokens[i] == b" x" for i in tab.hits) == found


def test_find_in_all_documents(tab: Tab) -> None:
    tab.part("find").fill("three SCRIPTS")
    tab.part("search").click()
    tab.page.wait_for_function(
        "document.querySelector('[data-part=found]').textContent.includes('1 of 5')"
    )
    tab.until_shown(WITH_SCRIPTS)
    assert "Three scripts" in tab.text


def test_find_in_all_documents_under_a_filter(tab: Tab) -> None:
    """The filters hold in every document: only what passes them is counted, and shown."""
    tab.choose(kind="number")
    tab.part("find").fill("3")
    tab.part("search").click()
    tab.page.wait_for_function(
        "document.querySelector('[data-part=found]').textContent.includes('in 1 of 5')"
    )
    tab.show(FIRST)
    assert tab.hits
    tab.choose(kind="punctuation")
    tab.part("search").click()
    tab.page.wait_for_function(
        "document.querySelector('[data-part=found]').textContent.includes('in 0 of 5')"
    )


def test_what_was_found_is_forgotten_when_a_filter_changes(tab: Tab) -> None:
    """Else the list would hold documents that the new filters have nothing in."""
    listed = tab.part("document").locator("option")
    found = "document.querySelector('[data-part=found]').textContent.includes('in 1 of 5')"
    for change in (
        lambda: tab.choose(kind="punctuation"),
        lambda: tab.part("find").fill("x"),
        lambda: tab.choose(band="3"),
    ):
        tab.choose(kind="number", band="")
        tab.part("find").fill("3")
        assert listed.count() == 5
        tab.part("search").click()
        tab.page.wait_for_function(found)
        assert listed.count() == 1
        change()
        tab.page.wait_for_function("!" + found)
        assert listed.count() == 5
        assert "search anew" in tab.part("found").inner_text()
        assert tab.part("document").locator("option:checked").count() == 1


def test_a_link_out_of_what_was_found_lists_all_documents(tab: Tab, address: str) -> None:
    tab.part("find").fill("three SCRIPTS")
    tab.part("search").click()
    tab.until_shown(WITH_SCRIPTS)
    tab.page.evaluate("id => setState({ document: id, find: state.find })", HELDOUT)
    tab.until_shown(HELDOUT)
    assert tab.part("document").locator("option:checked").count() == 1


def test_no_change_to_show_is_said(tab: Tab, address: str) -> None:
    """One state alone: the choice is closed; a state against itself, or against one that saw other
    tokens: said, with what to do."""
    tab.open(address, f"#document={WITH_SCRIPTS}&color=change")
    change = tab.part("color").locator("option[value=change]")
    assert "(nothing to compare with)" in str(change.text_content()) and change.is_disabled()
    assert tab.part("color").input_value() == "entropy"
    assert "there is no change to show" in tab.part("hint").inner_text()
    assert tab.part("hint").is_visible()
    tab.choose(color="surprise")
    assert tab.part("hint").is_hidden()
    tab.show(HELDOUT)
    assert change.is_enabled()
    tab.choose(color="change", view="model:trained")
    assert tab.part("hint").is_hidden()
    assert tab.part("legend").inner_text().startswith("since model: start:")
    tab.choose(view="model:start")
    assert "model: start is compared with itself" in tab.part("hint").inner_text()
    tab.page.evaluate(
        """async () => {
          const number = document.querySelector("[data-part=document]").value;
          const doc = await block(`data-${number}`);
          doc.outcomes.start = new Map();
          for (const [i, groups] of doc.groupsAt)
            doc.groupsAt.set(i, groups.filter((group) => group.model !== "start"));
        }"""
    )
    tab.choose(view="model:trained")
    assert "No token has rollouts of both" in tab.part("hint").inner_text()


@pytest.mark.parametrize(("width", "abreast"), [(390, 1), (1280, 3), (1700, 3)])
def test_models_stand_side_by_side_where_they_fit(
    browser: Any, address: str, width: int, abreast: int
) -> None:
    tab = Tab(browser, {"width": width, "height": 900}, "light").open(address)
    views = tab.part("rollouts").locator(".group-view")
    assert views.count() == 3
    tops = [views.nth(n).bounding_box()["y"] for n in range(3)]
    assert tops.count(tops[0]) == abreast
    button = tab.page.get_by_role("button", name="trained · ")
    button.scroll_into_view_if_needed()  # with the text, which is laid out where it is seen
    tab.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    place = "one => one.getBoundingClientRect().top - inspector.getBoundingClientRect().top"
    before = button.evaluate(place)
    button.click()
    assert views.count() == 1  # and what was pressed stays where it is
    assert button.evaluate(place) == before
    tab.choose(view="model:trained", other="model:start", color="change")
    tops = [views.nth(n).bounding_box()["y"] for n in range(2)]
    assert tops.count(tops[0]) == min(abreast, 2)
    tab.context.close()


def test_a_choice_ends_before_its_arrow(tab: Tab) -> None:
    for select in tab.page.locator("select").all():
        style = select.evaluate(
            "one => [parseFloat(getComputedStyle(one).paddingRight), "
            "getComputedStyle(one).textOverflow]"
        )
        assert style[0] >= 20 and style[1] == "ellipsis"


def test_a_filter_scrolls_to_its_first_match(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={WITH_HOSTILE}&token=0")
    tab.part("text").evaluate("text => { text.style.height = '4rem'; text.scrollTop = 0; }")
    tab.part("find").fill("and more")
    tab.page.wait_for_function("document.querySelector('[data-part=text]').scrollTop > 0")
    first = tab.page.locator("#inspector .hit").first.bounding_box()
    box = tab.part("text").bounding_box()
    assert box["y"] <= first["y"] < box["y"] + box["height"]


def test_the_change_of_two_models_has_one_pane_as_wide_as_any(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={HELDOUT}&view=model:trained")
    wide = tab.part("text").bounding_box()["width"]
    tab.choose(other="model:start", color="change")
    assert tab.part("pane-other").is_hidden()
    assert tab.part("text").bounding_box()["width"] == pytest.approx(wide, abs=2)


def test_rollouts_are_not_cut(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={FIRST}&token={POSITIONS[0]}")
    panel = tab.page.locator(".panel")
    assert panel.evaluate("panel => panel.scrollHeight <= panel.clientHeight + 1")


def test_the_keyboard_skips_to_the_report(tab: Tab) -> None:
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to the report"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "content"


def test_drawn_charts_keep_their_names(tab: Tab) -> None:
    draw_all(tab.page)
    names = tab.page.eval_on_selector_all(
        ".plot", "plots => plots.map(plot => [plot.getAttribute('role'), plot.ariaLabel])"
    )
    assert all(role == "img" and name for role, name in names)
    assert any(name.startswith("Reward. Step 1 to 6: ") for _, name in names)


def test_a_link_shows_another_the_same(tab: Tab, browser: Any, address: str) -> None:
    tab.show(FIRST)
    tab.choose(color="rate", only="sampled")
    tab.page.locator(f"#t{POSITIONS[1]}").click()
    tab.page.get_by_role("button", name="step 2 ·").click()
    link = tab.page.url
    other = Tab(browser, DESKTOP, "light").open(link)
    assert (other.panel(), other.hits) == (tab.panel(), tab.hits)
    assert "Step 2 ✓" in other.panel()
    assert other.part("color").input_value() == "rate"
    other.open(address, "#document=none")
    assert other.part("absent").is_visible()
    other.open(address, f"#document={FIRST}&token=99999&color=nonsense&view=step:x&band=9")
    assert "Choose a token" in other.panel()
    assert other.said == []
    other.context.close()


def test_hostile_text_stays_text(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={WITH_HOSTILE}&token={POSITIONS[0]}")
    draw_all(tab.page)
    assert HOSTILE in tab.text
    assert "onerror=alert(2)" in tab.panel().replace("␣", " ")  # in the thoughts
    assert tab.page.locator("img").count() == 0
    scripts = tab.page.locator("script:not([type='application/gzip'])")
    assert scripts.count() == 4  # ours alone; the charts' library as text, and as it runs
    tab.open(address, "#document=<script>alert(1)</script>&find=<img src=x onerror=alert(1)>")


def test_bytes_are_made_visible(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={WITH_SCRIPTS}")
    for sign in ("⟨U+202E⟩", "⟨U+200B⟩", "⟨U+0007⟩", "⇥", "⏎", "😀", "中文字"):
        assert sign in tab.text, sign
    assert "\u202e" not in tab.text and "\x07" not in tab.text
    tokens = tokens_of(TEXTS[WITH_SCRIPTS][1])
    halves = [tab.page.locator(f"#t{tokens.index(half)}") for half in (FACE[:2], FACE[2:])]
    assert [half.inner_text() for half in halves] == ["😀", "·"]
    for half, bytes_ in zip(halves, ("⟨F0⟩⟨9F⟩", "⟨98⟩⟨80⟩"), strict=True):
        half.hover()
        assert str(half.get_attribute("title")).endswith(f"part of a character, bytes {bytes_}")
    assert tab.part("text").locator("[dir=auto]").count() > 0
    tab.part("spaces").check()
    assert "Three␣scripts" in tab.text


def test_samples_sort_filter_and_export(tab: Tab) -> None:
    table = tab.page.locator("table.samples")
    table.scroll_into_view_if_needed()
    table.locator("tbody tr").first.wait_for()
    status = tab.page.locator('#samples [data-part="range"]')
    assert status.inner_text() == "1 to 25 of 81 groups"
    of = tab.page.locator('#samples [data-part="of"]')
    for value, count in (("model:trained", 12), ("development", 6), ("training", 39)):
        of.select_option(value)
        assert status.inner_text().endswith(f" of {count} groups")
    table.get_by_role("button", name="position").click()
    column = [int(text) for text in table.locator("td:nth-child(3)").all_inner_texts()]
    assert column == sorted(column) and len(column) == 25
    tab.page.locator('#samples [data-part="from"]').fill("6")
    assert status.inner_text() == "1 to 9 of 9 groups"
    tab.page.locator('#samples [data-part="outcome"]').select_option("beats-ntp")
    assert status.inner_text() == "1 to 3 of 3 groups"  # at position 14 NTP is wrong
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="JSON lines").click()
    lines = [json.loads(line) for line in download.value.path().read_text("utf-8").splitlines()]
    assert len(lines) == 15
    assert {line["position"] for line in lines} == {14} and {line["step"] for line in lines} == {6}
    assert any(line["prediction"] is None for line in lines)
    assert HOSTILE in lines[0]["thought"] and "\\xf0\\x9f" in lines[0]["thought"]
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8"))))
    assert len(rows) == 15 and rows[0]["thought"] == lines[0]["thought"]
    table.locator("tbody a").first.click()
    tab.part("panel").filter(has_text="token 14").wait_for()


def test_keyboard_alone(tab: Tab, address: str) -> None:
    tab.open(address, f"#document={FIRST}")
    wanted, order = {"smooth", "document", "color", "find"}, []
    # Round the whole page: an address with a fragment may let the first Tab start at its target.
    for _ in range(300):
        tab.page.keyboard.press("Tab")
        order.append(
            tab.page.evaluate(
                "document.activeElement.dataset.part ?? document.activeElement.dataset.chart"
            )
        )
        if order[-1] == "text" and wanted <= set(order):
            break
    assert wanted <= set(order) and order[-1] == "text"
    tab.page.keyboard.press("PageDown")
    assert f"token {POSITIONS[0]}" in tab.panel()
    tab.page.keyboard.press("PageDown")
    assert f"token {POSITIONS[1]}" in tab.panel()
    tab.page.keyboard.press("ArrowRight")
    assert f"token {POSITIONS[1] + 1}" in tab.panel()
    active = tab.part("text").get_attribute("aria-activedescendant")
    assert active == f"t{POSITIONS[1] + 1}"
    tab.page.keyboard.press("End")
    assert f"token {len(tokens_of(TEXTS[FIRST][1])) - 1}" in tab.panel()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names(browser: Any, address: str, scheme: str) -> None:
    """axe, by WCAG 2.1 A and AA, in each colouring of the text."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = Tab(browser, DESKTOP, scheme)
    contrast = {"runOnly": ["color-contrast"]}
    every = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
    tab.open(address, f"#document={FIRST}&token={POSITIONS[0]}")
    tab.page.locator("table.samples").scroll_into_view_if_needed()
    tab.page.locator("table.samples tbody tr").first.wait_for()
    # The whole page by all rules once: the scheme and the second colouring change colours only, the
    # latter those of the inspector.
    whole = contrast if scheme == "dark" else every
    for color, where, rules in (("entropy", None, whole), ("rate", "#inspector", contrast)):
        tab.choose(color=color)
        found = axe.run(tab.page, where, rules).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []
    tab.context.close()


def test_colours_of_curves_stand_out(tab: Tab) -> None:
    """Graphics by 3 to 1 on their ground (WCAG 1.4.11), text on every palette by 4.5 to 1: axe
    sees no canvas, and not every colour that a token can take."""
    for theme in ("light", "dark"):
        ratios = tab.page.evaluate(
            """(theme) => {
              document.documentElement.classList.toggle("dark", theme === "dark");
              const probe = document.body.appendChild(document.createElement("i"));
              const rgb = (color) => { probe.style.color = color;
                return getComputedStyle(probe).color.match(/\\d+/g).map(Number); };
              const light = (color) => rgb(color).map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
              const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort();
                return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
              const lines = (theme === "dark" ? DARK : LIGHT).map((c) => ratio(c, "var(--page)"));
              const texts = ["amount", "verdict"].flatMap((name) => [0, 1, 2, 3, 4]
                .map((i) => ratio("var(--text)", `var(--${name}-${i})`)));
              return { lines: Math.min(...lines), texts: Math.min(...texts) };
            }""",
            theme,
        )
        assert ratios["lines"] >= 3 and ratios["texts"] >= 4.5, (theme, ratios)


def test_it_opens_on_held_out_text_with_all_models(tab: Tab) -> None:
    assert "heldout" in tab.page.inner_text("#inspector [data-part=about]")
    views = [f"Model: {name}" for name in ("start", "warmup", "trained")]
    assert [name for name in views if name in tab.panel()] == views
    tab.page.get_by_role("button", name="trained · ").click()
    assert [name for name in views if name in tab.panel()] == ["Model: trained"]


def test_phone(browser: Any, address: str) -> None:
    tab = Tab(browser, PHONE, "dark").open(address, f"#document={FIRST}&token={POSITIONS[0]}")
    draw_all(tab.page)
    tab.page.locator("table.samples tbody tr").first.wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    thought = tab.page.locator(".rollouts td.thought").first.bounding_box()
    assert thought["x"] >= 0 and thought["x"] + thought["width"] <= PHONE["width"]
    assert tab.said == []
    tab.context.close()


def test_a_table_that_is_cut_says_so_and_a_legend_fits(browser: Any, address: str) -> None:
    """What a phone cuts off of a table lies under a shadow; no name of a legend is cut off."""
    tab = Tab(browser, PHONE, "light").open(address)
    wide = tab.page.eval_on_selector_all(
        ".scroll",
        "all => all.filter(one => one.scrollWidth > one.clientWidth)"
        ".map(one => getComputedStyle(one).backgroundAttachment)",
    )
    assert wide and all("local" in one and "scroll" in one for one in wide)
    fitted = """([names, width]) => {
        const legend = { columns: 2 };
        const color = { legend, scale: { domain: names } };
        fitLegends({ layer: [{ encoding: { color } }] }, width);
        return legend.columns;
    }"""
    long = ["start-positions=60, reasoning", "trained, NTP"]
    assert tab.page.evaluate(fitted, [long, 360]) == 1
    assert tab.page.evaluate(fitted, [long, 570]) == 2
    assert tab.page.evaluate(fitted, [["a", "b"], 360]) == 2
    tab.context.close()


def test_each_name_of_a_legend_has_its_sign_and_is_whole(browser: Any, tmp_path: Path) -> None:
    """As drawn, over another run: a colour for a run, a dash for a series; no name is cut."""
    run = fill(made_up_run(tmp_path / "demo"))
    long = "trained-positions_per_document=20"
    record(run, long, evaluation_result(0.5), model="tiny", split="heldout")
    tab = Tab(browser, DESKTOP, "light")
    tab.open(write_report(run, [fill(made_up_run(tmp_path / "other"), steps=4)]).as_uri())
    drawn = """async (title) => {
        const data = await block("data-curves");
        const plot = [...document.querySelectorAll("figure")]
          .find((one) => one.querySelector("h4").textContent === title).querySelector(".plot");
        const chart = data.charts.find((one) => one.id === plot.id);
        const settings = { smooth: 0, log: false, axis: "step", from: "", to: "" };
        const spec = chart ? chartSpec(chart, data.runs, settings) : data.accuracy;
        fitLegends(spec, plot.clientWidth);
        const embed = await chartLibrary();
        const { view } = await embed(plot, spec, { config: chartTheme(), actions: false });
        const found = { signs: [], names: [], whole: true };
        const look = (item) => {
          if (item.role === "legend-symbol") found.signs.push(...item.items.map((sign) =>
            [sign.stroke !== "transparent" && sign.opacity > 0, String(sign.strokeDash ?? "")]));
          if (item.role === "legend-label") for (const label of item.items) {
            found.names.push(label.text);
            const pen = document.createElement("canvas").getContext("2d");
            pen.font = `${label.fontSize}px ${label.font}`;
            found.whole &&= pen.measureText(label.text).width <= label.limit;
          }
          for (const inner of item.items ?? []) look(inner);
        };
        look(view.scenegraph().root);
        return found;
    }"""
    found = tab.page.evaluate(drawn, "Closed boxes")
    assert found["names"] == ["demo", "other", "box closed", "stopped by itself"]
    seen, dashes = zip(*found["signs"], strict=True)
    assert all(seen) and len({*dashes[2:]}) == 2 and found["whole"]
    found = tab.page.evaluate(drawn, "Held-out accuracy by difficulty")
    assert f"{long}, reasoning" in found["names"] and found["whole"]
    tab.context.close()


def test_theme_button(tab: Tab) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    before = tab.page.evaluate(ground)
    tab.page.locator("button[data-theme]").click()
    assert tab.page.evaluate(ground) != before


def test_reports_of_unfinished_runs(browser: Any, tmp_path: Path) -> None:
    """Nothing done yet; and files that are damaged: said, without an error of the scripts."""
    empty = made_up_run(tmp_path / "empty")
    damaged = fill(made_up_run(tmp_path / "damaged"), steps=2)
    (damaged.scored / "documents-00000.parquet").unlink()
    (damaged.path / "rollouts" / "step-000002.parquet").write_bytes(b"PAR1")
    with damaged.metrics.open("a") as file:
        file.write('{"stage": "train", "st')
    tab = Tab(browser, DESKTOP, "light")
    tab.page.goto(write_report(empty).as_uri())
    assert "No metrics yet" in tab.page.inner_text("#curves")
    assert "No text to show" in tab.page.inner_text("#inspector")
    tab.open(write_report(damaged).as_uri(), f"#document={FIRST}")
    assert "step-000002.parquet: not readable" in tab.page.inner_text("#summary")
    tab.page.locator("#inspector .running .sampled").first.click()
    assert "Step 1 ✓ 2 of 5 right" in tab.panel()
    assert tab.said == []
    tab.context.close()
