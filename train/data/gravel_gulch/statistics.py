"""Statistics of the captions beside those published of FlintstonesSV."""

from __future__ import annotations

import re
from collections import Counter

from train.data.gravel_gulch.script import episode
from train.data.gravel_gulch.world import REGULARS, Clip


PRONOUN = re.compile(r"\b(he|she|they|him|her|them)\b", re.IGNORECASE)
SENTENCE = re.compile(r"[.!?](?:\s|$)")
# measured on the 4,380 validation and test captions of FlintstonesSV that start a story
FLINTSTONES = {
    "words, mean": 16.7,
    "words, median": 15,
    "words, 95th percentile": 31,
    "one sentence": 0.45,
    "two sentences": 0.42,
    "three or more": 0.13,
    "with a pronoun": 0.46,
    "no regular": 0.13,
    "one regular": 0.50,
    "two regulars": 0.35,
    "three or more regulars": 0.02,
    "most frequent regular": 0.54,
    "second": 0.27,
    "third": 0.24,
    "least frequent regular": 0.025,
}


def statistics(clips: list[Clip]) -> dict[str, float]:
    """The figures of `FLINTSTONES`, of these clips."""
    words = sorted(len(clip.caption.split()) for clip in clips)
    sentences = [len(SENTENCE.findall(clip.caption)) for clip in clips]
    present = [{actor.look.name for actor in clip.actors} - {None} for clip in clips]
    shares = Counter(name for names in present for name in names)
    ranked = sorted((shares[name] / len(clips) for name in REGULARS), reverse=True)

    def share(answers: list[bool]) -> float:
        return sum(answers) / len(clips)

    return {
        "words, mean": sum(words) / len(words),
        "words, median": words[len(words) // 2],
        "words, 95th percentile": words[int(0.95 * len(words))],
        "one sentence": share([count == 1 for count in sentences]),
        "two sentences": share([count == 2 for count in sentences]),
        "three or more": share([count > 2 for count in sentences]),
        "with a pronoun": share([PRONOUN.search(clip.caption) is not None for clip in clips]),
        "no regular": share([not names for names in present]),
        "one regular": share([len(names) == 1 for names in present]),
        "two regulars": share([len(names) == 2 for names in present]),
        "three or more regulars": share([len(names) > 2 for names in present]),
        "most frequent regular": ranked[0],
        "second": ranked[1],
        "third": ranked[2],
        "least frequent regular": ranked[-1],
    }


def statistics_table(world: str, seed: int, episodes: int = 60, clips: int = 30) -> str:
    """Both columns as text."""
    drawn = [clip for number in range(episodes) for clip in episode(world, seed * 100_000 + number, clips)]
    ours = statistics(drawn)
    lines = [f"{'':26}{'FlintstonesSV':>14}{world:>10}"]
    lines += [f"{name:26}{real:>14g}{ours[name]:>10.3g}" for name, real in FLINTSTONES.items()]
    return "\n".join(lines)
