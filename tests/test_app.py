"""The page as a visitor meets it: `python app.py` in a process of its own, and a browser that walks through it.

Screenshots go to a temporary folder, or to the one that SAGANETS_SCREENSHOTS names; studio.png and compare.png of them
are the README's.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from sagan_pipeline.story_file import read_png, read_story_json


ROOT = Path(__file__).parents[1]
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
SECONDS_TO_START = 60  # on a busy machine; most of it is the imports
PAINTING = 180_000  # ms that a busy machine may take for a few frames
SOON = 60_000  # ms that a busy machine may take for anything else
expect.set_options(timeout=30_000)  # of all that names no time: a busy machine is slow
OPENING = "Gus is in the kitchen. He is talking to Mabel."

# Runs in the app's process before anything else, and notes every address that it looks up or connects to.
WATCH = """
import os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = args[1] if event == "socket.connect" else args
        host = address[0] if isinstance(address, tuple) else address
        with open(os.environ["WATCHED"], "a") as log:
            log.write(f"{host}\\n")

sys.addaudithook(watch)
"""


class App:
    def __init__(self, url: str, seconds_to_start: float, watched: Path, log: Path):
        self.url, self.seconds_to_start, self.watched, self.log = url, seconds_to_start, watched, log


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    (folder / "sitecustomize.py").write_text(WATCH)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(folder), "WATCHED": str(folder / "hosts")}
    environment["GRADIO_TEMP_DIR"] = str(folder / "files")
    command = [sys.executable, "app.py", "--port", str(port)]
    url, start = f"http://127.0.0.1:{port}", time.monotonic()
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        while not answers(url):
            said = (folder / "log").read_text()
            assert process.poll() is None, f"app.py ended:\n{said}"
            assert time.monotonic() - start < 120, f"app.py does not answer:\n{said}"
            time.sleep(0.1)
        yield App(url, time.monotonic() - start, folder / "hosts", folder / "log")
    finally:
        process.terminate()
        process.wait(timeout=20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return page.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Debian's chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = os.environ.get("SAGANETS_SCREENSHOTS")
    path = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def open_page(app, browser):
    """Opens the page; afterwards, whatever the test did, no request may have left the machine."""
    opened, hosts, errors = [], set(), []

    def open_it(width: int = 1600, dark: bool = False):
        context = browser.new_context(
            viewport={"width": width, "height": 1000}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        page = context.new_page()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.on("pageerror", lambda error: errors.append(str(error)))
        opened.append(context)
        visit(page)
        return page

    def visit(page) -> None:
        page.goto(app.url)
        expect(page.locator("#tell")).to_be_visible(timeout=SOON)
        # the desk is there once the server has drawn the board
        expect(page.locator("#board .board[aria-busy=false]")).to_be_visible(timeout=SOON)

    yield open_it
    for context in opened:
        context.close()
    assert hosts - {None} <= set(LOOPBACK)
    assert errors == []


def frames(page):
    return page.locator("#board .frame")


def shots(page):
    return page.locator("#board .shot:visible")


def sources(page) -> list[str]:
    return [shot.get_attribute("src") for shot in shots(page).all()]


def captions(page) -> list[str]:
    return [field.input_value() for field in page.locator("#board textarea").all()]


def rest(page, count: int) -> None:
    """Wait until `count` frames are painted, and nothing is going on."""
    expect(shots(page)).to_have_count(count, timeout=PAINTING)
    expect(frames(page)).to_have_count(count)
    expect(page.locator("#board .ghost:visible")).to_have_count(0, timeout=PAINTING)
    expect(page.locator("#board .board")).to_have_attribute("aria-busy", "false", timeout=PAINTING)
    expect(page.get_by_role("button", name="Continue")).to_be_disabled(timeout=PAINTING)


def tell(page, opening: str = OPENING, count: int = 2) -> None:
    page.locator("#opening textarea").fill(opening)
    page.locator("#frames input[type=number]").fill(str(count))
    page.locator("#frames input[type=number]").press("Tab")
    page.locator("#tell").click()
    rest(page, count)


def changed(page, before: list[str], at: list[int]) -> None:
    """Wait until the pictures at these places are others, and see that no other one is."""
    for number, source in enumerate(before):
        shot = page.locator("#board .shot").nth(number)
        if number in at:
            expect(shot).not_to_have_attribute("src", source, timeout=PAINTING)
    rest(page, len(before))
    now = sources(page)
    assert [number for number in range(len(before)) if now[number] != before[number]] == at


def button(page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def caption_of(page, number: int):
    return page.get_by_role("textbox", name=f"Caption of frame {number}", exact=True)


def unfold(page, elem_id: str) -> None:
    page.locator(f"#{elem_id} > button").click()


def check_with_axe(page) -> None:
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    grave = [each for each in results.response["violations"] if each["impact"] in ("serious", "critical")]
    said = [(each["id"], [node["html"][:200] for node in each["nodes"]][:5]) for each in grave]
    assert not said, said


def picture_of(page, source: str) -> bytes:
    return page.request.get(page.url.rstrip("/") + "/" + source).body()


def test_answers_soon(app):
    assert app.seconds_to_start < SECONDS_TO_START


# Notes each number of frames and of pictures that the page ever shows, and how far anything below moved meanwhile.
WATCH_FRAMES = """() => {
  window.counts = []; window.ghosts = new Set(); window.heights = new Set();
  new MutationObserver(() => {
    const count = document.querySelectorAll("#board .shot:not([hidden])").length;
    if (window.counts.at(-1) !== count) window.counts.push(count);
    for (const ghost of document.querySelectorAll("#board .ghost:not([hidden])")) window.ghosts.add(ghost.src);
    const board = document.querySelector("#board .frames");
    if (board.children.length === 3) window.heights.add(board.getBoundingClientRect().height);
  }).observe(document.querySelector("#board"), { childList: true, subtree: true, attributes: true });
}"""


def test_a_story_comes_and_is_directed(open_page, pictures):
    """Points 1 to 3 of the page: start, watch it come, direct it."""
    page = open_page()
    page.evaluate(WATCH_FRAMES)
    tell(page, count=3)
    # captions first, then frames out of noise, one after another, and nothing jumps
    counts = [count for count in page.evaluate("window.counts") if count]
    assert counts == sorted(set(counts)) and counts[-1] == 3
    assert len(counts) > 1 and page.evaluate("window.ghosts.size") > 1  # a slow browser may skip some
    assert page.evaluate("window.heights.size") == 1
    expect(page.locator("#board .message")).to_contain_text("3 frames in")
    told = captions(page)
    assert told[0] == OPENING and all(told)
    assert [shot.get_attribute("alt") for shot in shots(page).all()] == told
    # one more frame
    button(page, "One more frame").click()
    rest(page, 4)
    assert captions(page)[:3] == told
    page.screenshot(path=pictures / "studio.png")
    before = sources(page)

    # redraw one, and only that one
    button(page, "Redraw frame 2").click()
    changed(page, before, [1])

    # an edited caption is painted, and what was written from it is marked
    before = sources(page)
    field = caption_of(page, 1)
    field.fill("Otto is in the bedroom. He is sleeping.")
    field.press("Enter")
    changed(page, before, [0])
    expect(page.locator("#board .stale:visible")).to_have_count(3, timeout=SOON)
    page.screenshot(path=pictures / "stale.png")
    button(page, "Keep the caption of frame 2").click()
    expect(page.locator("#board .stale:visible")).to_have_count(2, timeout=SOON)
    button(page, "Rewrite the caption of frame 3").click()
    expect(page.locator("#board .stale:visible")).to_have_count(1, timeout=SOON)
    rest(page, 4)
    button(page, "Keep the caption of frame 4").click()
    expect(page.locator("#board .stale:visible")).to_have_count(0, timeout=SOON)

    # three suggestions for a caption
    button(page, "Other captions for frame 4").click()
    options = page.locator("#board .option:visible")
    expect(options).to_have_count(3, timeout=PAINTING)
    page.screenshot(path=pictures / "suggestions.png")
    chosen = options.nth(1).text_content()
    options.nth(1).click()
    expect(caption_of(page, 4)).to_have_value(chosen, timeout=SOON)
    rest(page, 4)

    # pin, move, insert, delete; then all the way back and forth
    before, words = sources(page), captions(page)
    button(page, "Pin frame 1").click()
    expect(button(page, "Redraw frame 1")).to_be_disabled(timeout=SOON)
    button(page, "Move later: frame 1").click()
    expect(caption_of(page, 2)).to_have_value(words[0], timeout=SOON)
    assert sources(page) == [before[1], before[0], *before[2:]]
    button(page, "Insert after frame 1").click()
    rest(page, 5)
    button(page, "Delete frame 5").click()
    rest(page, 4)
    for left in (5, 4):
        button(page, "Undo").click()
        expect(frames(page)).to_have_count(left, timeout=SOON)
    button(page, "Undo").click()
    expect(caption_of(page, 1)).to_have_value(words[0], timeout=SOON)
    button(page, "Undo").click()
    expect(button(page, "Redraw frame 1")).to_be_enabled(timeout=SOON)
    assert sources(page) == before and captions(page) == words
    button(page, "Redo").click()
    expect(button(page, "Unpin frame 1")).to_be_visible(timeout=SOON)


def test_stop_and_continue(open_page):
    page = open_page()
    page.locator("#frames input[type=number]").fill("16")
    page.locator("#frames input[type=number]").press("Tab")
    expect(page.locator("#frames input[type=range]")).to_have_value("16", timeout=SOON)  # else three are painted
    page.locator("#surprise").click()
    expect(shots(page).first).to_be_visible(timeout=PAINTING)
    button(page, "Stop").click()
    expect(page.locator("#board .board")).to_have_attribute("aria-busy", "false", timeout=PAINTING)
    expect(page.locator("#board .message")).to_contain_text("Stopped")
    kept = sources(page)
    assert 1 <= len(kept) < 16 and all(captions(page))
    while frames(page).count() > len(kept) + 1:
        count = frames(page).count()
        button(page, f"Delete frame {count}").click()
        expect(frames(page)).to_have_count(count - 1, timeout=SOON)
    button(page, "Continue").click()
    rest(page, len(kept) + 1)
    assert sources(page)[: len(kept)] == kept


def test_alpha_is_live_and_strengths_are_compared(open_page, pictures):
    """Points 4 and 5."""
    page = open_page()
    tell(page)
    before, words = sources(page), captions(page)
    slider = page.locator("#alpha input[type=range]")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.02 * box["width"], box["y"] + box["height"] / 2)
    changed(page, before, [0, 1])
    alpha = int(slider.input_value())
    expect(page.locator("#strength")).to_contain_text(f"alpha {alpha} = ")
    assert captions(page) == words and alpha < 10
    slider.press("ArrowRight")  # a keyboard repaints too
    expect(page.locator("#strength")).to_contain_text(f"alpha {alpha + 1} = ", timeout=SOON)
    rest(page, 2)
    # back by one step, or two: moves that follow each other at once are one
    button(page, "Undo").click()
    expect(page.locator("#strength")).not_to_contain_text(f"alpha {alpha + 1} = ", timeout=SOON)
    if slider.input_value() != "32":
        button(page, "Undo").click()
    expect(page.locator("#strength")).to_contain_text("alpha 32 = ", timeout=SOON)
    expect(page.locator("#board .shot").first).to_have_attribute("src", before[0], timeout=SOON)
    assert sources(page) == before  # they were kept

    unfold(page, "compare")
    # the sweep fills in behind, and its slider needs no server
    expect(page.locator("#sweep img")).to_have_count(2, timeout=PAINTING)
    expect(page.locator("#sweep .sweep-note")).to_have_text("", timeout=PAINTING)
    expect(page.locator("#sweep img:not(.waiting)")).to_have_count(2)
    sweep = page.get_by_label("Slide through the strengths")
    first = page.locator("#sweep img").first
    expect(page.locator("#sweep output")).to_contain_text("alpha 0 = ")
    base = first.get_attribute("src")
    sweep.press("End")
    expect(page.locator("#sweep output")).to_contain_text("1.50")
    expect(first).not_to_have_attribute("src", base)

    button(page, "Side by side").click()
    cells = page.locator("#comparison td img")
    expect(cells).to_have_count(6, timeout=PAINTING)
    expect(page.locator("#comparison th").first).to_contain_text("alpha 0 (base)")
    assert [cells.nth(n).get_attribute("src") for n in (2, 5)] == before  # as trained is what is on the board
    expect(page.locator("#comparison .scores")).to_have_count(6, timeout=PAINTING)
    expect(page.locator("#pair-slider img").first).to_be_visible(timeout=SOON)
    page.locator("#comparison").scroll_into_view_if_needed()
    check_with_axe(page)
    page.locator("#comparison").screenshot(path=pictures / "compare.png")
    page.screenshot(path=pictures / "compare-page.png", full_page=True)


def test_a_story_is_taken_away_and_brought_back(open_page, pictures, tmp_path):
    """Points 1, 6 and the reload."""
    page = open_page()
    tell(page)
    before = sources(page)
    button(page, "Redraw frame 2").click()
    changed(page, before, [1])
    seen = [np.asarray(Image.open(io.BytesIO(picture_of(page, source)))) for source in sources(page)]
    words = captions(page)
    unfold(page, "take-away")
    page.get_by_label("Title, for pages and PDF").fill("A day in Gravel Gulch")
    files = {}
    for kind, name in (("comic", "story-comic.png"), ("pdf", "story-pdf.pdf"), ("story", "story.json")):
        page.locator(f"#take-{kind}").click()
        link = page.locator(f"#taken a[download='{name}']")
        expect(link).to_be_visible(timeout=SOON)
        with page.expect_download() as download:
            link.click()
        files[kind] = tmp_path / name
        download.value.save_as(files[kind])
    assert files["pdf"].read_bytes().startswith(b"%PDF")
    assert read_png(files["comic"].read_bytes()).story.captions == words
    assert read_story_json(files["story"].read_bytes()).story.captions == words
    page.screenshot(path=pictures / "take-away.png", full_page=True)

    # a reload brings it back, painted again from its seeds
    page.reload()
    rest(page, 2)
    assert captions(page) == words
    for source, picture in zip(sources(page), seen, strict=True):
        again = np.asarray(Image.open(io.BytesIO(picture_of(page, source))), dtype=int)
        assert abs(again - picture).max() <= 1

    # and so does its file, for somebody else, with the very pictures
    other = open_page(390)
    unfold(other, "bring")
    other.locator("#files input[type=file]").set_input_files(files["story"])
    rest(other, 2)
    assert captions(other) == words
    for source, picture in zip(sources(other), seen, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture_of(other, source)))), picture)


def test_own_pictures_open_a_story(open_page, tmp_path):
    page = open_page()
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "mine.jpg")
    (tmp_path / "no.png").write_bytes(b"\x89PNG this is none")
    unfold(page, "bring")
    chooser = page.locator("#files input[type=file]")
    chooser.set_input_files(tmp_path / "no.png")
    expect(page.get_by_test_id("toast-body")).to_contain_text("no.png: this is no picture", timeout=SOON)
    page.locator("#files").get_by_label("Remove").or_(page.locator("#files").get_by_label("Clear")).first.click()
    page.locator("#files input[type=file]").set_input_files(tmp_path / "mine.jpg")
    expect(page.locator("#brought")).to_contain_text("Your picture opens the next story", timeout=SOON)
    tell(page)
    with Image.open(io.BytesIO(picture_of(page, sources(page)[0]))) as first:
        assert first.size == (64, 48)


def test_says_what_it_knows_and_warns_about_the_rest(open_page):
    """Point 7."""
    page = open_page()
    expect(page.locator("#warning")).to_be_hidden()
    page.locator("#opening textarea").fill("Gus is in the helicopter.")
    expect(page.locator("#warning")).to_contain_text("helicopter", timeout=SOON)
    page.locator("#opening textarea").fill("")
    for chip in ("Mabel", "kitchen"):
        page.locator("#chips").get_by_role("button", name=chip).click()
    expect(page.locator("#opening textarea")).to_have_value("Mabel the kitchen ")
    expect(page.locator("#warning")).to_be_hidden(timeout=SOON)
    unfold(page, "can")
    expect(page.locator("#can")).to_contain_text("one small cartoon world")
    tell(page, "Gus is in the helicopter.", count=1)
    expect(page.locator("#board u")).to_have_text(["helicopter"])
    expect(page.locator("#board .hint:visible")).to_contain_text("helicopter")


def test_bad_input_is_explained_and_leaves_the_story(open_page):
    page = open_page()
    tell(page, count=1)
    before = sources(page)
    page.locator("#opening textarea").fill("Gus is in the kitchen. " * 500)
    page.locator("#tell").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("has 11499 characters", timeout=SOON)
    rest(page, 1)
    assert sources(page) == before
    # what looks like a page of its own stays text
    tell(page, "<img src=x onerror=alert(1)> Gus & <b>Mabel</b>.", count=1)
    assert captions(page) == ["<img src=x onerror=alert(1)> Gus & <b>Mabel</b>."]
    expect(page.locator("#board b, #board img[src=x]")).to_have_count(0)


def test_dice_roll_another_seed(open_page):
    page = open_page()
    unfold(page, "settings")
    seed = page.locator("#seed input")
    expect(seed).to_have_value("7")
    page.locator("#dice").click()
    expect(seed).not_to_have_value("7", timeout=SOON)
    assert 0 <= int(seed.input_value()) < 2**31


@pytest.mark.parametrize("width", [1600, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_fits_the_screen_and_everybody(open_page, pictures, width, dark):
    page = open_page(width, dark)
    name = f"{width}-{'dark' if dark else 'light'}"
    page.screenshot(path=pictures / f"{name}-empty.png", full_page=True)
    tell(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for each in ("settings", "bring", "compare", "take-away"):
        unfold(page, each)
    expect(page.locator("#strengths")).to_be_visible(timeout=SOON)
    page.get_by_label("Scores under the pictures").check()
    expect(page.locator("#board .scores li").first).to_be_visible(timeout=PAINTING)
    expect(page.locator("#board .scores").last).to_contain_text("like the frame before", timeout=PAINTING)
    expect(page.locator("#sweep .sweep-frames img").first).to_be_visible(timeout=PAINTING)
    check_with_axe(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=pictures / f"{name}.png", full_page=True)


def test_nothing_leaves_the_machine(app, open_page):
    """Neither the browser (see `open_page`) nor the process: it looks up and connects to this machine only."""
    page = open_page()
    assert page.evaluate("window.gradio_config.analytics_enabled") is False
    hosts = set(app.watched.read_text().split())
    assert "127.0.0.1" in hosts  # Gradio knocks at its own door when it starts, so the watch works
    assert hosts <= set(LOOPBACK), app.log.read_text()


def test_no_traceback_was_printed(app):
    """Last, after everything that the tests above did."""
    assert not re.search(r"^Traceback", app.log.read_text(), re.M), app.log.read_text()
