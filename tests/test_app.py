"""The page as a visitor meets it: `python app.py` in a process of its own, and a browser."""

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

import pytest
from playwright.sync_api import expect, sync_playwright


ROOT = Path(__file__).parents[1]
LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
SECONDS_TO_START = 20
PAINTING = 60_000  # ms that a busy machine may take for two frames

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


@pytest.fixture
def page(app, browser):
    """The page, freshly opened; afterwards, whatever the test did, no request may have left the machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    hosts, errors = set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.url)
    expect(page.locator("#tell")).to_be_visible(timeout=30_000)
    yield page
    page.close()
    assert hosts - {None} <= set(LOOPBACK)
    assert errors == []


def tell(page, opening: str, frames: int = 2) -> None:
    page.locator("#opening textarea").fill(opening)
    page.locator("#frames input[type=number]").fill(str(frames))
    page.locator("#frames input[type=number]").press("Tab")
    page.locator("#tell").click()


def frames(page):
    return page.locator("#story .thumbnail-lg img")


# Notes every number of frames that the page ever shows, however short.
COUNT_FRAMES = """() => {
  window.counts = [];
  new MutationObserver(() => {
    const count = document.querySelectorAll("#story .thumbnail-lg img").length;
    if (window.counts.at(-1) !== count) window.counts.push(count);
  }).observe(document.body, { childList: true, subtree: true });
}"""


def sources(page) -> list[str]:
    return [frame.get_attribute("src") for frame in frames(page).all()]


def test_answers_within_20_seconds(app):
    assert app.seconds_to_start < SECONDS_TO_START


def test_tells_a_story_and_repaints_it_under_another_alpha(page):
    page.evaluate(COUNT_FRAMES)
    tell(page, "Gus is in the kitchen. He is talking to Mabel.")
    expect(frames(page)).to_have_count(2, timeout=PAINTING)
    assert [count for count in page.evaluate("window.counts") if count] == [1, 2]  # one by one
    expect(page.locator("#status")).to_contain_text(re.compile("2 frames at alpha .*seed 7"))
    captions = page.locator("#story .caption-label").all_text_contents()
    assert captions[0].strip() == "Gus is in the kitchen. He is talking to Mabel." and len(captions) == 2
    before = sources(page)

    slider = page.locator("#alpha input[type=range]")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.02 * box["width"], box["y"] + box["height"] / 2)
    expect(page.locator("#strength")).not_to_contain_text("alpha 32 = ")
    alpha = int(slider.input_value())
    expect(page.locator("#strength")).to_contain_text(f"alpha {alpha} = ")
    expect(page.locator("#status")).to_contain_text(f"2 frames repainted at alpha {alpha}", timeout=PAINTING)
    expect(frames(page)).to_have_count(2)
    assert page.locator("#story .caption-label").all_text_contents() == captions
    assert not set(before) & set(sources(page))


def test_says_what_it_knows_and_warns_about_the_rest(page):
    expect(page.locator("#knows")).to_contain_text("Mabel")
    expect(page.locator("#knows")).to_contain_text("kitchen")
    expect(page.locator("#warning")).to_be_hidden()
    page.locator("#opening textarea").fill("Gus is in the helicopter.")
    expect(page.locator("#warning")).to_contain_text("helicopter")
    page.locator("#opening textarea").fill("Gus is in the kitchen.")
    expect(page.locator("#warning")).to_be_hidden()


def test_bad_input_is_explained_and_leaves_the_story(page):
    tell(page, "Gus is in the kitchen.", frames=1)
    expect(page.locator("#status")).to_contain_text("1 frame at alpha", timeout=PAINTING)
    before = sources(page)
    tell(page, "Gus is in the kitchen. " * 500)
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text("the caption has 11499 characters", timeout=PAINTING)
    expect(frames(page)).to_be_visible()  # no word over it hides it
    assert sources(page) == before


def test_dice_roll_another_seed(page):
    seed = page.locator("#seed input")
    assert seed.input_value() == "7"
    page.locator("#dice").click()
    expect(seed).not_to_have_value("7")
    assert 0 <= int(seed.input_value()) < 2**31


def test_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_leaves_the_machine(app, page):
    """Neither the browser (see `page`) nor the process: it looks up and connects to this machine only."""
    assert page.evaluate("window.gradio_config.analytics_enabled") is False
    hosts = set(app.watched.read_text().split())
    assert "127.0.0.1" in hosts  # Gradio knocks at its own door when it starts, so the watch works
    assert hosts <= set(LOOPBACK), app.log.read_text()
