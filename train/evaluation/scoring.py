"""What the judge and the scorers see in a row of stories, and the figures that follow, each with its interval.

Everything but the distances is a ratio of counts that add up over stories, so that a bootstrap is a matrix product:
stories are drawn with replacement, and the figures computed anew from each draw's sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from train.evaluation.stories import TestStories, reduced
from train.metrics.clip import Scorer
from train.metrics.distance import frechet_distance
from train.metrics.inception import PublishedJudge
from train.metrics.judge import THRESHOLD, Judge


BOOTSTRAPS = 1000
DISTANCE_BOOTSTRAPS = 100  # each is a singular value decomposition
STORIES_AT_ONCE = 16
MAX_CROWD = 3  # "3" is three regulars or more
NEIGHBOUR_SIDE = 64  # pixels at which neighbouring frames are compared: who stands where, not the grain
Stats = dict[str, np.ndarray]
Features = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, 3) -> (N, D)


@dataclass(frozen=True)
class Seen:
    """What was seen in one painting of the stories.

    Args:
        characters (`np.ndarray`): bool (stories, frames, characters).
        places (`np.ndarray`): str (stories, frames).
        features (`np.ndarray`): float32 (stories, frames, D), the judge's, of the whole picture.
        stats (`Stats`): what adds up over stories: (stories, ...) each.
        inception (`np.ndarray`, *optional*): float32 (stories, frames, 2048).
    """

    characters: np.ndarray
    places: np.ndarray
    features: np.ndarray
    stats: Stats
    inception: np.ndarray | None = None

    def mistakes(self, stories: TestStories) -> np.ndarray:
        """Wrong characters and wrong settings: int (stories, frames)."""
        known = np.array(stories.settings)
        return (self.characters != stories.labels).sum(axis=-1) + (
            (known != "") & (self.places != "") & (known != self.places)
        )


def look(
    judge: Judge | PublishedJudge,
    stories: TestStories,
    pictures: Callable[[int], np.ndarray],
    scorer: Scorer | None = None,
    inception: Features | None = None,
    originals: Callable[[int], np.ndarray] | None = None,
) -> Seen:
    """Show every story's frames to the judge and the scorers.

    Args:
        pictures: a story's number to its frames, uint8 (frames, H, W, 3).
        originals: what the frames are meant to be, pixel by pixel, of the same size.
    """
    if not judge.settings:  # nobody to say where
        stories = replace(stories, settings=[[""] * stories.num_frames for _ in stories.ids])
    found: dict[str, list[np.ndarray]] = {
        name: [] for name in ("who", "where", "features", "alike", "clip", "near", "deep", "true")
    }
    frames = stories.num_frames
    for first in range(0, len(stories), STORIES_AT_ONCE):
        rows = range(first, min(first + STORIES_AT_ONCE, len(stories)))
        shown = np.concatenate([reduced(pictures(i), stories.resolution) for i in rows])
        who, where, features = judge(shown)
        found["who"].append(who.numpy().reshape(len(rows), frames, -1) > THRESHOLD)
        found["where"].append(_names(where, judge.settings).reshape(len(rows), frames))
        found["features"].append(features.numpy().reshape(len(rows), frames, -1))
        regions = judge.regions(shown).numpy().reshape(len(rows), frames, len(judge.classes), -1)
        found["alike"].append(np.array([alike(r, stories.labels[i]) for r, i in zip(regions, rows, strict=True)]))
        by_story = shown.reshape(len(rows), frames, *shown.shape[1:])
        found["near"].append(
            np.array(
                [
                    neighbour_sums(story, stories.labels[i], stories.settings[i], stories.scored)
                    for story, i in zip(by_story, rows, strict=True)
                ]
            )
        )
        if originals is not None:
            wanted = np.concatenate([reduced(originals(i), stories.resolution) for i in rows])
            found["true"].append(decibels(shown, wanted).reshape(len(rows), frames)[:, stories.scored])
        if scorer is not None:
            images = scorer.pictures(shown).reshape(len(rows), frames, -1)
            texts = scorer.captions([c for i in rows for c in stories.captions[i]]).reshape(images.shape)
            found["clip"].append(
                np.array(
                    [
                        clip_sums(image, text, stories.labels[i], stories.scored)
                        for image, text, i in zip(images, texts, rows, strict=True)
                    ]
                )
            )
        if inception is not None:
            found["deep"].append(inception(shown).reshape(len(rows), frames, -1))
    whole = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    stats = character_stats(whole["who"], stories) | place_stats(whole["where"], stories)
    stats |= {"alike": whole["alike"][:, 0], "alike_pairs": whole["alike"][:, 1]}
    stats |= {"apart": whole["near"][:, 0], "apart_pairs": whole["near"][:, 1]}
    if scorer is not None:
        for i, name in enumerate(("clip_t", "clip_t_frames", "clip_i", "clip_i_pairs")):
            stats[name] = whole["clip"][:, i]
    if originals is not None:
        stats["psnr"] = whole["true"].sum(axis=1)
        stats["psnr_frames"] = np.full(len(stories), len(stories.scored))
    return Seen(whole["who"], whole["where"], whole["features"], stats, whole.get("deep"))


def decibels(pictures: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each picture, uint8 (N, H, W, 3), to its original: (N,) in dB."""
    both = (torch.from_numpy(each).float() for each in (pictures, originals))
    return peak_signal_noise_ratio(*both, data_range=255.0, dim=(1, 2, 3), reduction="none").numpy()


def _names(where: torch.Tensor, settings: Sequence[str]) -> np.ndarray:
    return np.array([settings[i] for i in where.argmax(dim=1)] if settings else [""] * len(where))


def alike(regions: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Sum and number of the cosines between a character's regions (frames, characters, D) in any two frames of a story
    in which it ought to be (labels, bool (frames, characters))."""
    total, pairs = 0.0, 0
    for character in range(labels.shape[1]):
        there = regions[labels[:, character], character]
        unit = there / np.maximum(np.linalg.norm(there, axis=1, keepdims=True), 1e-9)
        cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        total, pairs = total + float(cosines.sum()), pairs + len(cosines)
    return total, pairs


def neighbour_sums(
    pictures: np.ndarray, labels: np.ndarray, settings: Sequence[str], scored: Sequence[int]
) -> tuple[float, int]:
    """Sum and number of one story's distances between a scored frame and the one before it, of those that share the
    setting or a character (as `train.objectives.temporal` pairs them): mean squared difference of the pictures, uint8
    (frames, H, W, 3), at `NEIGHBOUR_SIDE` pixels and in [-1, 1]. Of pixels, so that it is of no model's latents."""
    small = reduced(pictures, NEIGHBOUR_SIDE).astype(np.float32) / 127.5 - 1
    pairs = [
        f
        for f in scored
        if f and ((labels[f] & labels[f - 1]).any() or (settings[f] and settings[f] == settings[f - 1]))
    ]
    return sum(float(np.square(small[f] - small[f - 1]).mean()) for f in pairs), len(pairs)


def clip_sums(
    images: np.ndarray, texts: np.ndarray, labels: np.ndarray, scored: Sequence[int]
) -> tuple[float, int, float, int]:
    """Sums and numbers of one story's cosines: each scored picture to its caption, and to the picture before it where
    the two share a character."""
    told = sum(float(images[f] @ texts[f]) for f in scored)
    pairs = [f for f in scored if f and (labels[f] & labels[f - 1]).any()]
    return told, len(scored), sum(float(images[f] @ images[f - 1]) for f in pairs), len(pairs)


def character_stats(seen: np.ndarray, stories: TestStories) -> Stats:
    """Counts of a story's scored frames: hits, seen and there by character; right and all frames by crowd."""
    seen, there = seen[:, stories.scored], stories.labels[:, stories.scored]  # [S, F, C]
    right = (seen == there).all(axis=-1)  # [S, F]
    crowd = np.minimum(there.sum(axis=-1), MAX_CROWD)
    by_crowd = crowd[..., None] == np.arange(MAX_CROWD + 1)  # [S, F, crowd]
    return {
        "hits": (seen & there).sum(axis=1),
        "seen": seen.sum(axis=1),
        "there": there.sum(axis=1),
        "right": (right[..., None] & by_crowd).sum(axis=1),
        "frames": by_crowd.sum(axis=1),
    }


def place_stats(seen: np.ndarray, stories: TestStories) -> Stats:
    """Counts of a story's scored frames: right settings, and frames that have one."""
    known = np.array(stories.settings)[:, stories.scored]
    return {
        "placed": ((seen[:, stories.scored] == known) & (known != "")).sum(axis=1),
        "annotated": (known != "").sum(axis=1),
    }


def figures_of(sums: Stats, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """The figures of summed counts; leading axes, as of a bootstrap's draws, are kept. What has no case is NaN."""

    def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
        return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)

    hits, seen, there = (sums[name] for name in ("hits", "seen", "there"))
    # as in scikit-learn, a character that never occurs and is never seen counts 0
    each = np.nan_to_num(ratio(2 * hits, seen + there))
    right, frames = sums["right"], sums["frames"]
    found = {
        "char_f1_micro": np.nan_to_num(ratio(2 * hits.sum(-1), (seen + there).sum(-1))),
        "char_f1_macro": each.mean(axis=-1),
        "frame_acc": ratio(right.sum(-1), frames.sum(-1)),
        **{f"frame_acc_{n}": ratio(right[..., n], frames[..., n]) for n in range(MAX_CROWD + 1)},
        "frame_acc_2_and_3": ratio(right[..., 2:].sum(-1), frames[..., 2:].sum(-1)),
        "bg_acc": ratio(sums["placed"], sums["annotated"]),
        "consistency": ratio(sums["alike"], sums["alike_pairs"]),
        "neighbour_distance": ratio(sums["apart"], sums["apart_pairs"]),
        **{f"char_f1 {name}": each[..., i] for i, name in enumerate(classes)},
    }
    if "psnr" in sums:
        found["psnr"] = ratio(sums["psnr"], sums["psnr_frames"])
    if "clip_t" in sums:
        found["clip_t"] = ratio(sums["clip_t"], sums["clip_t_frames"])
        found["clip_i"] = ratio(sums["clip_i"], sums["clip_i_pairs"])
    return found


def weights(stories: int, draws: int, seed: int) -> np.ndarray:
    """How often each story is in each bootstrap draw: (draws, stories)."""
    return np.random.default_rng(seed).multinomial(stories, np.full(stories, 1 / stories), size=draws)


def with_intervals(
    stats: Stats, compute: Callable[[Stats], Mapping[str, np.ndarray]], seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Figures of counts (stories, ...), and their 95% bootstrap intervals over stories."""
    drawn = weights(len(next(iter(stats.values()))), BOOTSTRAPS, seed)
    draws = compute({name: np.tensordot(drawn, value, axes=1) for name, value in stats.items()})
    figures = {n: float(v) for n, v in compute({name: value.sum(axis=0) for name, value in stats.items()}).items()}
    intervals = {}
    for name, value in draws.items():
        if not np.isnan(figures[name]):
            intervals[name] = np.nanpercentile(value, [2.5, 97.5]).tolist()
    return figures, intervals


class Halves:
    """Fréchet distances between two disjoint halves of the scored frames, by equal counts.

    The floor is real against real. A row's distance is its frames of one half against the real ones of the other,
    averaged over the two ways: the same clips, the same counts, so that the two compare.

    Args:
        stories (`TestStories`): says which clip is in which half.
        real (`np.ndarray`): features of the real frames, (stories, frames, D).
    """

    def __init__(self, stories: TestStories, real: np.ndarray):
        sides = stories.halves()[:, stories.scored]
        places = [np.argwhere(sides == half) for half in (0, 1)]  # rows: (story, scored frame)
        self.count = min(len(p) for p in places)
        draw = np.random.default_rng(stories.seed)
        self.places = [p[np.sort(draw.permutation(len(p))[: self.count])] for p in places]
        self.scored = np.array(stories.scored)
        self.real = real

    def _take(self, features: np.ndarray, half: int, drawn: np.ndarray | None) -> np.ndarray:
        stories, frames = self.places[half].T
        if drawn is not None:
            keep = np.repeat(np.arange(len(stories)), drawn[stories])
            stories, frames = stories[keep], frames[keep]
        return features[stories, self.scored[frames]]

    def floor(self, drawn: np.ndarray | None = None) -> float:
        """Real against real."""
        return frechet_distance(self._take(self.real, 0, drawn), self._take(self.real, 1, drawn))

    def distance(self, features: Sequence[np.ndarray], drawn: np.ndarray | None = None) -> float:
        """Of features (stories, frames, D), one array a seed: the mean over seeds and over the two ways."""
        ways = [
            frechet_distance(self._take(each, half, drawn), self._take(self.real, 1 - half, drawn))
            for each in features
            for half in (0, 1)
        ]
        return float(np.mean(ways))

    def interval(self, measure: Callable[[np.ndarray | None], float], seed: int) -> list[float]:
        """95% by bootstrap over stories."""
        return distance_interval(measure, len(self.real), seed)


class Whole:
    """The distance of all painted scored frames to all real ones of the same stories, as the literature takes FID.

    Args:
        stories (`TestStories`): says which frames are scored.
        real (`np.ndarray`): features of the real frames, (stories, frames, D).
    """

    def __init__(self, stories: TestStories, real: np.ndarray):
        self.scored, self.real = stories.scored, real
        self.count = len(real) * len(stories.scored)

    def distance(self, features: Sequence[np.ndarray], drawn: np.ndarray | None = None) -> float:
        """Of features (stories, frames, D), one array a seed: the mean over seeds."""
        rows = np.arange(len(self.real)) if drawn is None else np.repeat(np.arange(len(self.real)), drawn)
        real, *painted = (each[rows][:, self.scored].reshape(-1, each.shape[-1]) for each in (self.real, *features))
        return float(np.mean([frechet_distance(real, each) for each in painted]))

    def interval(self, measure: Callable[[np.ndarray | None], float], seed: int) -> list[float]:
        """As `Halves.interval`."""
        return distance_interval(measure, len(self.real), seed)


def distance_interval(measure: Callable[[np.ndarray | None], float], stories: int, seed: int) -> list[float]:
    """95% by bootstrap over stories, about the figure itself: repeated stories alone make a distance larger, so that
    the draws' own mean is off by as much as it differs from the figure."""
    figure = measure(None)
    values = [measure(drawn) for drawn in weights(stories, DISTANCE_BOOTSTRAPS, seed)]
    low, high = np.percentile(values, [2.5, 97.5]) - np.mean(values)
    return [max(0.0, figure + float(low)), figure + float(high)]


def pooled(seen: Sequence[Seen]) -> Stats:
    """The counts of several paintings of the same stories, story by story."""
    return {name: sum(each.stats[name] for each in seen) for name in seen[0].stats}


def figures_of_row(
    seen: Sequence[Seen],
    halves: Mapping[str, Halves | Whole],
    classes: Sequence[str],
    seed: int,
    distances: bool = True,
) -> dict[str, object]:
    """Everything about one row.

    Args:
        seen: one painting a seed.
        halves: `"fjd"`, and `"fid"` where Inception-v3's weights were given.

    Returns:
        the figures pooled over seeds, `intervals` (95%) of each, `per_seed` figures, and `char_f1` by name.
    """
    compute = lambda sums: figures_of(sums, classes)  # noqa: E731
    figures, intervals = with_intervals(pooled(seen), compute, seed)
    per_seed = [{n: float(v) for n, v in compute({k: s.sum(0) for k, s in s.stats.items()}).items()} for s in seen]
    for name, each in halves.items() if distances else ():
        features = [s.features if name == "fjd" else s.inception for s in seen]
        figures[name] = each.distance(features)
        intervals[name] = each.interval(lambda drawn: each.distance(features, drawn), seed)
        for row, one in zip(per_seed, features, strict=True):
            row[name] = each.distance([one])
    by_name = {name: figures.pop(f"char_f1 {name}") for name in classes}
    return {
        **figures,
        "char_f1": by_name,
        "intervals": intervals,
        "per_seed": [{n: v for n, v in row.items() if not n.startswith("char_f1 ")} for row in per_seed],
        "cases": {
            "frames": int(seen[0].stats["frames"].sum()) * len(seen),
            "frames_by_regulars": {str(n): int(c) for n, c in enumerate(pooled(seen)["frames"].sum(axis=0).tolist())},
        },
    }
