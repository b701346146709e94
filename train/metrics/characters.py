"""Figures on who and what is in a frame, from labels alone."""

from __future__ import annotations

import numpy as np


def f1(hits: float, predicted: float, actual: float) -> float:
    """Harmonic mean of precision and recall from counts; 0 if there is nothing to find and nothing found."""
    return 2 * hits / (predicted + actual) if predicted + actual else 0.0


def character_scores(predicted: np.ndarray, actual: np.ndarray, classes: list[str]) -> dict[str, object]:
    """Char-F1 and Frame-Acc as the literature computes them.

    Args:
        predicted (`np.ndarray`): (N, C) of 0 and 1, who the judge sees.
        actual (`np.ndarray`): (N, C) of 0 and 1, who ought to be there.
        classes (`list[str]`): the C names.

    Returns:
        `char_f1_micro` (over all frames and characters), `char_f1_macro` (mean of the characters' own F1; as in
        scikit-learn, a character that never occurs and is never seen counts 0), `frame_acc` (share of frames with
        exactly the right characters), `frame_acc_by_cast` (the same of the frames in which so many ought to be) and
        `char_f1` by name.

    Raises:
        ValueError: the shapes do not agree, or there is no frame.
    """
    predicted, actual = np.asarray(predicted, dtype=bool), np.asarray(actual, dtype=bool)
    if predicted.shape != actual.shape or predicted.ndim != 2 or predicted.shape[1] != len(classes):
        raise ValueError(
            f"`predicted` {predicted.shape} and `actual` {actual.shape} must both be (frames, {len(classes)} classes)."
        )
    if not len(actual):
        raise ValueError("`actual` holds no frame.")
    hits, seen, there = (predicted & actual).sum(axis=0), predicted.sum(axis=0), actual.sum(axis=0)
    each = [f1(*counts) for counts in zip(hits.tolist(), seen.tolist(), there.tolist(), strict=True)]
    right, crowd = (predicted == actual).all(axis=1), actual.sum(axis=1)
    return {
        "char_f1_micro": f1(int(hits.sum()), int(seen.sum()), int(there.sum())),
        "char_f1_macro": float(np.mean(each)) if each else 0.0,
        "frame_acc": float(right.mean()),
        "frame_acc_by_cast": {str(n): float(right[crowd == n].mean()) for n in np.unique(crowd).tolist()},
        "char_f1": dict(zip(classes, each, strict=True)),
    }


def accuracy(predicted: list[str], actual: list[str]) -> float:
    """Share of equal entries; entries whose actual value is empty (not annotated) do not count.

    Raises:
        ValueError: the lengths differ, or nothing is annotated.
    """
    if len(predicted) != len(actual):
        raise ValueError(f"`predicted` has {len(predicted)} entries, but `actual` has {len(actual)}.")
    pairs = [(p, a) for p, a in zip(predicted, actual, strict=True) if a]
    if not pairs:
        raise ValueError("`actual` holds no annotated entry.")
    return sum(p == a for p, a in pairs) / len(pairs)
