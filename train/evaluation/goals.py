"""What the shipped model is meant to reach, beside what it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path


# figure of the row `model`: what it is called, and the least that is wanted
SHARES = {
    "char_f1_micro": ("Char-F1 micro", 0.95),
    "frame_acc": ("Frame-Acc", 0.88),
    "bg_acc": ("BG-Acc", 0.95),
    "frame_acc_2_and_3": ("two and three regulars in a frame, all of them right", 0.88),
}
FJD_FLOORS = 2  # at most so many times the distance of real frames from real ones
COMPLETE, BELOW_REAL = 0.995, 0.03
PSNR = 28
UNSEEN = 40


def goals_table(report: Mapping[str, object], unseen: Path) -> str:
    """The goals as a section of Markdown; what the report does not hold is left out.

    Args:
        report: of the shipped model on stories.
        unseen (`Path`): the table of captions written by hand, each judged by looking; may not exist.
    """
    rows = {row["name"]: row for row in report["rows"]}
    model = rows["model"]
    lines = ["## The goals", "", "| | goal | reached | |", "|---|---|---|---|"]

    def line(words: str, goal: str, reached: str, met: bool) -> None:
        lines.append(f"| {words} | {goal} | {reached} | {'met' if met else 'missed'} |")

    def add(
        words: str, row: Mapping, name: str, bound: float, show: Callable[[float], str], most: bool = False
    ) -> None:
        if row.get(name) is None:
            return
        low, high = map(show, row["intervals"][name])
        met = row[name] <= bound if most else row[name] >= bound
        line(words, f"at {'most' if most else 'least'} {show(bound)}", f"{show(row[name])} ({low} to {high})", met)

    percent, plain, decibels = "{:.1%}".format, "{:.1f}".format, "{:.1f} dB".format
    for name, (words, least) in SHARES.items():
        add(words, model, name, least, percent)
    add(f"FJD: {FJD_FLOORS} times its floor", model, "fjd", FJD_FLOORS * rows["real"]["fjd"], plain, most=True)
    if captions := report.get("captions"):
        sampled, real = captions["sampled"], captions["real"]
        add("sampled captions that are complete", sampled, "complete", COMPLETE, percent)
        least = (real["faithful"] or 0) - BELOW_REAL
        add("faithful to the prefix: real ones less 3 points", sampled, "faithful", least, percent)
    if "reconstructed" in rows:
        add("PSNR of real frames through the autoencoder", rows["reconstructed"], "psnr", PSNR, decibels)
    if unseen.exists():
        text = unseen.read_text(encoding="utf-8")
        judged = re.findall(r"^\| \d+ \|[^|]*\| (yes|no) \| (yes|no) \| (yes|no) \|", text, re.MULTILINE)
        right = judged.count(("yes", "yes", "yes"))
        words = f"captions written by hand of which place, cast and action are right ([one by one]({unseen.name}))"
        line(words, f"at least {UNSEEN}", f"{right} of {len(judged)}", right >= UNSEEN)
    return "\n".join(lines) + "\n"
