"""Time the studio in a browser against the pipeline called directly, interleaved, on one machine.

    python -m benchmarks.studio [--runs 5] [--json results.json]

In the browser: from the click on "Tell the story" to the first sharpened preview, to the first frame and to all four;
and from the move of the slider of alpha to four repainted frames, each as a person sees it; the last with the few-step
adapter too. Directly, in a process of its own with as many threads, the same work in the same order:
`pipe.write_captions(...)`, `pipe.stream(...)` of them, one by one, and `pipe.paint(...)` of them under the other
alpha, in one batch. Nothing is taken from a cache: every run has a story and an alpha that no run before had. Medians,
and the page's time by the pipeline's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from playwright.sync_api import Page, expect, sync_playwright

from sagan_pipeline import SAGANetsPipeline, fastest_dtype


ROOT = Path(__file__).resolve().parents[1]
FEW_STEPS = "gravel-gulch-gan"  # of lora_weights
OPENING = "Gus is in the kitchen. He is talking to Mabel."
FRAMES = 4
# In the page: the time of each event, noted when it is drawn and not when somebody asks
WATCH = """() => {
  window.at = {};
  const note = (name) => { window.at[name] ??= performance.now(); };
  const look = () => {
    const cards = [...document.querySelectorAll("#board .frame")];
    if (!cards.length) return;
    if (cards.some((card) => !card.querySelector(".ghost").hidden)) note("preview");
    const fresh = cards.filter((card) => {
      const source = card.querySelector(".shot").getAttribute("src");
      return source && !window.old.has(source);
    }).length;
    if (fresh) note("first");
    if (fresh === 4) note("all");
  };
  new MutationObserver(look).observe(document.querySelector("#board"),
    { childList: true, subtree: true, attributes: true });
  window.mark = () => {
    window.old = new Set([...document.querySelectorAll("#board .shot")].map((shot) => shot.getAttribute("src")));
    window.at = { start: performance.now() };
  };
  window.old = new Set();
}"""


def seconds_in_page(page: Page, names: tuple[str, ...]) -> dict[str, float]:
    page.wait_for_function("window.at.all !== undefined", polling=100, timeout=300_000)
    at_rest(page)
    at = page.evaluate("window.at")
    return {name: (at[name] - at["start"]) / 1000 for name in names}


def in_browser(page: Page, seed: int, alpha: int) -> dict[str, float]:
    page.locator("#seed input").fill(str(seed))
    page.locator("#seed input").press("Tab")
    page.evaluate("() => { window.mark(); document.querySelector('#tell').click(); }")
    told = seconds_in_page(page, ("preview", "first", "all"))
    before = page.locator("#alpha input[type=number]").input_value()
    told["repaint"] = repainted(page, alpha)
    page.locator("#alpha input[type=number]").fill(before)
    page.locator("#alpha input[type=number]").press("Tab")
    expect(page.locator("#strength")).to_contain_text(f"alpha {before} = ", timeout=300_000)
    at_rest(page)
    return told


def repainted(page: Page, alpha: int) -> float:
    slider = page.locator("#alpha input[type=number]")
    slider.fill(str(alpha))
    page.evaluate("() => window.mark()")
    slider.press("Tab")
    return seconds_in_page(page, ("all",))["all"]


def choose_few_steps(page: Page) -> None:
    page.locator("#adapter input").click()
    page.get_by_role("option", name=FEW_STEPS).click()
    expect(page.locator("#board .frame").first).to_have_attribute("title", re.compile(FEW_STEPS), timeout=300_000)
    at_rest(page)


def at_rest(page: Page) -> None:
    expect(page.locator("#board .board")).to_have_attribute("aria-busy", "false", timeout=300_000)


def directly(pipe: SAGANetsPipeline, seed: int, alpha: int) -> dict[str, float]:
    start, times = time.perf_counter(), []
    (captions,) = pipe.write_captions([OPENING], FRAMES, generator=torch.Generator().manual_seed(seed))
    for _ in pipe.stream(captions, num_frames=FRAMES, generator=torch.Generator().manual_seed(seed)):
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    pipe.paint(captions, lora_alpha=alpha, generator=torch.Generator().manual_seed(seed))
    return {"first": times[0], "all": times[-1], "repaint": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
    pipe.set_progress_bar_config(disable=True)
    few_steps = SAGANetsPipeline.from_embedded(fastest_dtype())
    few_steps.load_adapter(ROOT / "lora_weights" / f"{FEW_STEPS}.safetensors")
    few_steps.set_progress_bar_config(disable=True)
    browser_times, direct_times = [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        log = Path(folder) / "log"
        environment = {**os.environ, "GRADIO_SERVER_PORT": "7895", "GRADIO_TEMP_DIR": f"{folder}/files"}
        with open(log, "w") as out:
            app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=out, stderr=out)
        try:
            while not (found := re.search(r"http://[\w.]+:\d+", log.read_text())):
                if app.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.2)
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page()
            page.goto(found[0])
            at_rest(page)
            page.locator("#settings > button").click()
            page.evaluate(WATCH)
            for run in range(args.runs + 1):  # the first warms up
                browser_times.append(in_browser(page, 1000 + run, 1 + run))
                direct_times.append(directly(pipe, 1000 + run, 1 + run))
            choose_few_steps(page)
            captions = [field.input_value() for field in page.locator("#board textarea").all()]
            for run in range(args.runs + 1):
                browser_times[run]["repaint_few_step"] = repainted(page, 1 + run)
                start = time.perf_counter()
                few_steps.paint(captions, lora_alpha=1 + run, generator=torch.Generator().manual_seed(run))
                direct_times[run]["repaint_few_step"] = time.perf_counter() - start
            browser.close()
        finally:
            app.terminate()
            app.wait(30)
    report = {
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "runs": args.runs,
    }
    for name in ("preview", "first", "all", "repaint", "repaint_few_step"):
        page_seconds = statistics.median(times[name] for times in browser_times[1:])
        report[f"{name}_page_s"] = round(page_seconds, 3)
        if name in direct_times[0]:
            direct_seconds = statistics.median(times[name] for times in direct_times[1:])
            report[f"{name}_direct_s"] = round(direct_seconds, 3)
            ratios = [b[name] / d[name] for b, d in zip(browser_times[1:], direct_times[1:], strict=True)]
            report[f"{name}_ratio"] = round(statistics.median(ratios), 3)
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if args.json:
        args.json.write_text(text)


if __name__ == "__main__":
    main()
