"""Two visitors at once, for minutes: `python .ci/two_visitors.py --minutes 2`.

Two browsers tell stories of their own under alphas of their own, move the slider and redraw frames, as fast as the
page lets them. Then each visitor does the same again alone. Every picture has to be the same, to the last bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright


ROOT = Path(__file__).parents[1]
PATIENCE = 300_000  # ms
WHO, WHERE = ("Gus", "Mabel", "Otto", "Nell", "Rumble"), ("kitchen", "yard", "cave", "beach", "street")


def sources(page: Page) -> list[str]:
    return [shot.get_attribute("src") for shot in page.locator("#board .shot:visible").all()]


def settled(page: Page, before: list[str], changed: int) -> list[str]:
    """Wait until the first `changed` pictures are others, and nothing is going on."""
    for number in range(changed):
        shot = page.locator("#board .shot:visible").nth(number)
        if number < len(before):
            expect(shot).not_to_have_attribute("src", before[number], timeout=PATIENCE)
        expect(shot).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#board .board")).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
    expect(page.locator("#board .ghost:visible")).to_have_count(0, timeout=PATIENCE)
    return sources(page)


def digests(page: Page) -> list[str]:
    base = page.url.rstrip("/")
    return [hashlib.sha256(page.request.get(f"{base}/{source}").body()).hexdigest() for source in sources(page)]


def round_of(page: Page, draw: random.Random) -> list[str]:
    """Tell a story of two frames, repaint it under another alpha, redraw a frame; what was seen at each step."""
    seen, before = [], sources(page)
    who, where = draw.choice(WHO), draw.choice(WHERE)
    page.locator("#opening textarea").fill(f"{who} is in the {where} with {draw.randrange(10**6)} cups.")
    page.locator("#tell").click()
    before = settled(page, before[:1], 2)  # the second caption may be that of the story before, and so its picture
    seen += digests(page)
    slider = page.locator("#alpha input[type=number]")
    alpha = draw.choice([n for n in range(65) if str(n) != slider.input_value()])
    slider.fill(str(alpha))
    slider.press("Tab")
    before = settled(page, before, 2)
    seen += digests(page)
    page.get_by_role("button", name="Redraw frame 1", exact=True).click()
    settled(page, before, 1)
    return seen + digests(page)


def visit(url: str, seed: int, stop_at: float | None, rounds: int | None, out: dict[int, list]) -> None:
    """One visitor, until `stop_at` or for `rounds`. Playwright's objects belong to the thread that made them."""
    draw, seen = random.Random(seed), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(url)
        expect(page.locator("#board .board")).to_have_attribute("aria-busy", "false", timeout=PATIENCE)
        page.locator("#frames input[type=number]").fill("2")
        page.locator("#frames input[type=number]").press("Tab")
        while (rounds is None or len(seen) < rounds) and (stop_at is None or time.monotonic() < stop_at):
            seen.append(round_of(page, draw))
        browser.close()
    out[seed] = seen


def together(url: str, seeds: tuple[int, int], minutes: float) -> dict[int, list]:
    out: dict[int, list] = {}
    stop_at = time.monotonic() + 60 * minutes
    threads = [threading.Thread(target=visit, args=(url, seed, stop_at, None, out)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(out) != len(seeds):
        sys.exit("a visitor gave up; see above")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environment = {**os.environ, "GRADIO_SERVER_PORT": "7894", "GRADIO_TEMP_DIR": f"{folder}/files"}
        with open(log, "w") as out:
            app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=out)
        try:
            while not (found := re.search(r"http://[\w.]+:\d+", log.read_text())):
                if app.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.2)
            seeds = (args.seed, args.seed + 1)
            both = together(found[0], seeds, args.minutes)
            alone: dict[int, list] = {}
            for seed in seeds:
                visit(found[0], seed, None, len(both[seed]), alone)
        finally:
            app.terminate()
            app.wait(30)
    for seed in seeds:
        pictures = sum(len(each) for each in both[seed])
        same = both[seed] == alone[seed]
        print(
            f"visitor {seed}: {len(both[seed])} rounds, {pictures} pictures, {'the same' if same else 'NOT the same'}"
        )
    if any(both[seed] != alone[seed] or not both[seed] for seed in seeds):
        sys.exit(1)


if __name__ == "__main__":
    main()
