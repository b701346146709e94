"""Figures on captions, from their words alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sacrebleu import corpus_bleu


SENTENCE_END = re.compile(r"[.!?][\"'”’)]*$")


def is_complete(caption: str) -> bool:
    """Whether a caption is not empty and ends as a sentence does."""
    return SENTENCE_END.search(caption.strip()) is not None


def named(caption: str, names: Sequence[str]) -> set[str]:
    """Which of `names` a caption says, as whole words, in any case: "Gus's" names Gus, "August" does not."""
    return {name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", caption, re.IGNORECASE)}


def keeps_one(prefix: Sequence[str], caption: str, names: Sequence[str]) -> bool | None:
    """Whether a caption names one of the characters, or places, that its prefix names; `None` if that names none."""
    before = set().union(*(named(text, names) for text in prefix))
    return bool(before & named(caption, names)) if before else None


def bleu_4(captions: Sequence[str], real: Sequence[str]) -> float:
    """BLEU-4 of captions against one real caption each, of the whole set, in [0, 1]; sacrebleu's, case ignored."""
    return corpus_bleu(list(captions), [list(real)], lowercase=True).score / 100


def share(answers: Sequence[bool | None]) -> tuple[float, int]:
    """Share of `True` among the answers that are not `None`, and how many those are; (0.0, 0) if there are none."""
    counted = [answer for answer in answers if answer is not None]
    return (sum(counted) / len(counted) if counted else 0.0), len(counted)


def distinct(captions: Sequence[str], n: int = 2) -> float:
    """Different n-grams of words as a share of all n-grams of all captions; 0 if there are none.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"`n` is {n}, but must be at least 1.")
    grams = []
    for caption in captions:
        words = re.findall(r"[\w']+", caption.lower())
        grams += [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
