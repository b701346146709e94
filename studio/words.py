"""What the page says in words: the strength behind an alpha, and the words that the model has never met."""

from __future__ import annotations

import re
from collections.abc import Iterable


WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?")


def captions_of(opening: str) -> list[str]:
    """The captions in a text box: one a line, empty lines left out."""
    return [line.strip() for line in opening.splitlines() if line.strip()]


def unknown_words(text: str, vocabulary: Iterable[str]) -> list[str]:
    """The words of `text` outside `vocabulary`, in order of appearance, each once and as it was written.

    Case does not matter, and a possessive ("Gus's") counts as its noun.
    """
    known = {word.lower() for word in vocabulary}
    unknown: dict[str, str] = {}
    for word in WORD.findall(text):
        plain = word.lower().replace("\u2019", "'")
        if plain not in known and plain.removesuffix("'s") not in known:
            unknown.setdefault(plain, word)
    return list(unknown.values())


def listed(words: list[str]) -> str:
    """The words as English lists them: `a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def warning_about(text: str, vocabulary: Iterable[str] | None) -> str:
    """Markdown naming the words of `text` that the model does not know, or "" when it knows them all.

    Without a vocabulary the model cannot say what it knows, and there is no warning.
    """
    if not vocabulary:
        return ""
    words = unknown_words(text, vocabulary)
    if not words:
        return ""
    quoted = listed([f"\u201c<u>{word}</u>\u201d" for word in words])
    return f"This model does not know {quoted}, and will paint something else there."


def strength_of(alpha: float | None, rank: int, trained_alpha: float) -> str:
    """Markdown saying what `alpha` means for an adapter of `rank` that was trained at `trained_alpha`."""
    if alpha is None:
        return f"Choose an alpha. This adapter was trained at {trained_alpha:g}, with r = {rank}."
    share = alpha / trained_alpha
    if alpha == 0:
        meaning = "the base model alone: generic people, no cast"
    elif share < 1:
        meaning = "between the base model and the cast"
    elif share == 1:
        meaning = "the cast as trained"
    else:
        meaning = "beyond the training: exaggerated, and at last broken"
    return f"**alpha {alpha:g} = {share:.2f} \u00d7 trained strength, r = {rank}** \u2013 {meaning}"
