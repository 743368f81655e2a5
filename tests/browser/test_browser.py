"""The page of a run in a real browser: what it shows, in light and dark, wide and narrow, by mouse and keyboard."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, FloatRect, Page, expect, sync_playwright

import skyward as sky
from skyward.events import DashboardOpened, Event, NodeFacts, Reported, RunEnded
from skyward.view.page import page as made
from tests import kit, work
from tests.browser import runs
from tests.unit.test_page import NASTY, RUN

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = os.environ.get("SKYWARD_LAB") == "required"

PAINTED = """() => {
    const canvas = document.getElementById('chart'), of = canvas.getContext('2d');
    const seen = new Set(new Uint32Array(of.getImageData(0, 0, canvas.width, canvas.height).data.buffer));
    return seen.size;
}"""
"""How many colours the timeline has."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)("no browser here: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield opened
        opened.close()


class Shown:
    """A page that is open, and what it complained of or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.asked.append(request.url))

    def is_wider_than_its_window(self) -> bool:
        return bool(self.page.evaluate("document.scrollingElement.scrollWidth > innerWidth"))

    def colours(self) -> int:
        return int(self.page.evaluate(PAINTED))


class Viewer:
    """Opens pages of runs."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser, self._folder = browser, folder
        self.shown: list[Shown] = []

    def blank(self, scheme: Literal["light", "dark"] = "light", width: int = 1280) -> Shown:
        page = self._browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        page.set_default_timeout(kit.SOON * 1000)
        self.shown.append(shown := Shown(page))
        return shown

    def open(self, events: Sequence[Event], scheme: Literal["light", "dark"] = "light", width: int = 1280) -> Shown:
        file = self._folder / "run.html"
        file.write_text(made(events), encoding="utf-8")
        shown = self.blank(scheme, width)
        shown.page.goto(file.as_uri())
        shown.page.wait_for_selector("body[data-drawn]")
        return shown


@pytest.fixture
def viewer(browser: Browser, tmp_path: Path) -> Iterator[Viewer]:
    """Nothing that is shown may complain, or ask for anything but itself."""
    viewer = Viewer(browser, tmp_path)
    yield viewer
    for shown in viewer.shown:
        assert shown.complaints == []
        assert all(url.startswith(("file://", "http://127.0.0.1:", "data:")) for url in shown.asked)
        shown.page.close()


TROUBLED = runs.ended(runs.troubled(), 2000)


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_run_is_shown_wide_and_narrow_in_light_and_dark(
    viewer: Viewer, scheme: Literal["light", "dark"], width: int
) -> None:
    shown = viewer.open(TROUBLED, scheme, width)
    expect(shown.page.locator("h1")).to_contain_text("1125-made")
    expect(shown.page.locator("#state")).to_have_text("finished")
    expect(shown.page.locator("#numbers")).to_contain_text("2,000")
    expect(shown.page.locator("#legend")).to_contain_text("link 3.00%")
    expect(shown.page.locator("#causes")).to_contain_text("node 3: not heard for 30 s")
    expect(shown.page.locator("#incidents")).to_contain_text("spot interruption in 120 s")
    expect(shown.page.locator("#quotes")).to_contain_text("$1.45 an hour")
    expect(shown.page.locator("#about")).to_contain_text("aws, 4 nodes × 4 slots (process)")
    expect(shown.page.locator("#span")).to_have_text("0:00 to 2:59")
    expect(shown.page.locator("#key")).to_contain_text("lost")
    expect(shown.page.locator("#spent")).to_have_text("$0.0568 in all")
    expect(shown.page.locator("#nodes tbody tr")).to_have_count(4)
    back = shown.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) > 380) == (scheme == "light")
    expect(shown.page.locator("#functions")).to_contain_text("train")
    shown.page.locator("#incidents button").first.click()
    assert not shown.is_wider_than_its_window()
    assert shown.colours() > 8


def test_the_mouse_tells_what_ran_and_zooms(viewer: Viewer) -> None:
    page = viewer.open(TROUBLED).page
    whole = page.locator("#span").inner_text()
    chart = page.locator("#chart")
    page.locator("#open").click()
    page.locator("#work").click()
    expect(page.locator("#span")).not_to_have_text(whole)
    page.locator("#lanes").scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 400, box["y"] + 45)
    expect(page.locator("#tip")).to_contain_text("slot 0 of node 0")
    before = page.locator("#span").inner_text()
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 60, steps=3)
    page.mouse.up()
    expect(page.locator("#span")).not_to_have_text(before)
    chart.dblclick(position={"x": 300, "y": 30})
    expect(page.locator("#span")).to_have_text(whole)


def test_the_keyboard_does_as_much(viewer: Viewer) -> None:
    page = viewer.open(TROUBLED).page
    whole = page.locator("#span").inner_text()
    page.locator("#lanes").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#spoken")).to_contain_text("node 0")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#spoken")).to_contain_text("returned on slot 0 of node 0")
    page.keyboard.press("+")
    expect(page.locator("#span")).not_to_have_text(whole)
    page.keyboard.press("0")
    expect(page.locator("#span")).to_have_text(whole)


def chart_of_slots(viewer: Viewer) -> tuple[Page, FloatRect]:
    """Open the page with the slots of all nodes shown; return it, and where its chart is."""
    page = viewer.open(TROUBLED).page
    page.locator("#open").click()
    box = page.locator("#chart").bounding_box()
    assert box is not None
    return page, box


def test_a_click_on_a_call_shows_what_it_printed(viewer: Viewer) -> None:
    page, box = chart_of_slots(viewer)
    rows = page.evaluate("rows.map(r => [r.kind, r.node ? r.node.node : -1, r.slot ?? -1, r.top + r.height / 2])")
    (middle,) = (top for kind, node, slot, top in rows if (kind, node, slot) == ("slot", 1, 0))
    at = page.evaluate("x(65 * head.ticks, $('chart').clientWidth)")
    page.mouse.move(box["x"] + at, box["y"] + middle)
    expect(page.locator("#tip")).to_contain_text(re.compile(r"train, task \d+: returned on slot 0 of node 1"))
    page.mouse.down()
    page.mouse.up()
    expect(page.locator("#whose")).to_have_text("Output of slot 0 of node 1")
    expect(page.locator("#about-output")).to_contain_text("train, task")
    expect(page.locator("#lines")).to_contain_text("epoch 7: <b>loss</b>")
    marked = page.locator("#lines .during")
    expect(marked.first).to_be_in_viewport()
    page.locator("#close").click()
    expect(page.locator("#output")).to_be_hidden()


def test_the_cpu_and_the_memory_of_a_node_are_shown_over_time(viewer: Viewer) -> None:
    page, box = chart_of_slots(viewer)
    tops = page.evaluate("rows.filter(r => r.kind === 'usage' && r.node.node === 1).map(r => r.top + r.height / 2)")
    at = page.evaluate("x(61 * head.ticks, $('chart').clientWidth)")
    for top, text in zip(tops, ("100% of its CPU", "0% of 17.18 GB of memory"), strict=True):
        page.mouse.move(box["x"] + at, box["y"] + top)
        expect(page.locator("#tip")).to_contain_text(text)
    expect(page.locator("#nodes")).to_contain_text("75% of 17.18 GB")


def test_a_call_that_went_wrong_leads_to_what_it_printed(viewer: Viewer) -> None:
    page = viewer.open(TROUBLED).page
    page.locator("#incidents button", has_text="train, task 3").first.click()
    expect(page.locator("#whose")).to_have_text("Output of node 3")
    expect(page.locator("#lines .log").first).to_contain_text("[slot 2] WARNING train: slow disk")


def test_the_keyboard_reaches_the_output_of_a_call(viewer: Viewer) -> None:
    page = viewer.open(TROUBLED).page
    page.locator("#lanes").focus()
    for key in ("ArrowDown", "Enter", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#whose")).to_have_text("Output of slot 0 of node 0")
    expect(page.locator("#about-output")).to_contain_text("nothing was printed there")


def test_what_slots_imported_is_told_apart_from_what_they_ran(viewer: Viewer) -> None:
    page = viewer.open(runs.importing()).page
    expect(page.locator("#legend")).to_contain_text("opening 50.00%")
    expect(page.locator("#about")).to_contain_text("aws, 1 node × 1 slot (process)")
    hint = 'Hint: slots spent 5.0 s importing slow: Image(preload=["slow"])'
    expect(page.locator("#hint")).to_have_text(hint)
    page.locator("#open").click()
    box = page.locator("#chart").bounding_box()
    assert box is not None
    rows = page.evaluate("rows.map(r => [r.kind, r.top + r.height / 2])")
    (middle,) = (top for kind, top in rows if kind == "slot")
    at = page.evaluate("x(65 * head.ticks, $('chart').clientWidth)")
    page.mouse.move(box["x"] + at, box["y"] + middle)
    expect(page.locator("#tip")).to_contain_text("for 10.00 s, of which 5.00 s to open it and import modules")


def test_while_a_run_goes_on_no_figure_contradicts_another(viewer: Viewer) -> None:
    *before, end = runs.importing()
    assert isinstance(end, RunEnded)
    at = before[-1].at
    running = NodeFacts(at - 1, 0, 0, 1, 0.5, 1 << 30, 0.5, 2 << 30)
    events: list[Event] = sorted([*before, running, Reported(at, end.report)], key=lambda event: event.at)
    page = viewer.open(events).page
    expect(page.locator("#done")).to_have_text("1 of 1 task done")
    expect(page.locator("#reported")).to_have_text(re.compile(r"^as of \d+\.\d+ s$"))
    expect(viewer.open([*events, end]).page.locator("#reported")).to_be_empty()


def test_what_comes_from_outside_is_shown_as_it_is(viewer: Viewer) -> None:
    page = viewer.open(RUN).page
    expect(page.locator("#name")).to_have_text(f"Skyward run {NASTY}")
    expect(page.locator("#error")).to_contain_text(NASTY)
    expect(page.locator("#causes")).to_contain_text(NASTY)
    assert page.locator("script").count() == 2


@pytest.mark.parametrize(
    ("events", "state"),
    [
        pytest.param([], "not finished when this page was made", id="nothing"),
        pytest.param([*runs.start(2, 2)], "not finished when this page was made", id="no tasks"),
        pytest.param([*runs.start(2, 2), *runs.work(2, 2, 40)], "not finished when this page was made", id="mid-run"),
        pytest.param([*runs.start(1, 1), RunEnded(1_795_000_099.0, "OSError: no", (), {})], "failed", id="failed"),
    ],
)
def test_a_run_is_shown_however_far_it_came(viewer: Viewer, events: list[Event], state: str) -> None:
    shown = viewer.open(events)
    expect(shown.page.locator("#state")).to_have_text(state)
    assert not shown.is_wider_than_its_window()
    if state == "failed":
        expect(shown.page.locator("#error")).to_have_text("OSError: no")


def test_twenty_thousand_tasks_on_a_hundred_slots_are_drawn_at_once(viewer: Viewer) -> None:
    shown = viewer.open([*runs.start(10, 10), *runs.work(10, 10, 20_000)])
    shown.page.locator("#open").click()
    assert float(shown.page.locator("body").get_attribute("data-drawn") or "inf") < 1000


def test_a_run_is_watched_until_it_ends(viewer: Viewer) -> None:
    shown = viewer.blank()
    with sky.Compute(worker=sky.Worker(concurrency=2), options=sky.Options(dashboard=True, record=False)) as compute:
        (opened,) = (event for event in compute.events() if isinstance(event, DashboardOpened))
        shown.page.goto(opened.url)
        expect(shown.page.locator("#state")).to_have_text("running")
        assert shown.page.url.count("token") == 0
        assert sorted(compute.map(work.square, range(20))) == [number**2 for number in range(20)]
        expect(shown.page.locator("#done")).to_contain_text("20 of 20 tasks done")
        expect(shown.page.locator("#numbers")).to_contain_text("Tasks20")
        compute.submit(print, "from afar").result(kit.SOON)
        shown.page.locator("#open").click()
        expect(shown.page.locator("#functions")).to_contain_text("print")
        shown.page.evaluate("ask(0, null, { begin: 0, end: end() }, '')")
        expect(shown.page.locator("#lines")).to_contain_text("from afar")
    expect(shown.page.locator("#state")).to_have_text("finished")
    expect(shown.page.locator("#lost")).to_be_visible()
    assert shown.colours() > 3


def test_a_report_is_saved_in_mid_run_and_afterwards(viewer: Viewer, tmp_path: Path) -> None:
    with sky.Compute(worker=sky.Worker(concurrency=2), options=sky.Options(record=False)) as compute:
        compute.submit(work.square, 2).result(kit.SOON)
        compute.report().save(tmp_path / "during.html")
    compute.report().save(str(tmp_path / "after.html"))
    for name, state in (("during", "not finished when this page was made"), ("after", "finished")):
        page = viewer.blank().page
        page.goto((tmp_path / f"{name}.html").as_uri())
        expect(page.locator("#state")).to_have_text(state)
        expect(page.locator("#lost")).to_be_visible()
