"""How rare a character is, or a kind of people: what the trainers draw the rare ones oftener by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def rarities(counts: Mapping[str, int]) -> dict[str, float]:
    """Each name's rarity from how often it is seen: 1 for the most frequent, 2 for one seen half as often."""
    most = max(counts.values(), default=0)
    return {name: most / count for name, count in counts.items()}


def rarest(names: Iterable[str], rarity: Mapping[str, float]) -> float:
    """The rarity of the rarest of some names; 1 where there is none, or none that `rarity` knows."""
    return max((rarity.get(name, 1.0) for name in names), default=1.0)


def clip_weights(
    casts: Sequence[Sequence[str]], told: Iterable[Iterable[str]], rare: float, rare_told: float
) -> list[float]:
    """How often each clip of generic town is to be drawn, against one of a single person of the most frequent kind of
    whom the most frequent thing is told.

    By the number of people, for who wears what is what takes longest to learn; by how rare the rarest kind (man,
    girl, toddler, ...: the last word of the town's names) is among them, to the power of `rare`; and by how rare the
    rarest thing is that the caption tells, to the power of `rare_told`: sleepers are in 2.7% of the town's clips.

    Args:
        casts (`Sequence[Sequence[str]]`): the people of each clip; one without any is never drawn.
        told (`Iterable[Iterable[str]]`): the actions, moods and things that each clip's caption tells.
        rare (`float`), rare_told (`float`): 0 and above; 0 leaves everything as frequent as it is.
    """
    kinds, told = [[name.split()[-1] for name in cast] for cast in casts], list(map(list, told))
    of_kinds, of_told = (rarities(Counter(name for names in each for name in names)) for each in (kinds, told))
    return [
        len(cast) * rarest(cast, of_kinds) ** rare * rarest(names, of_told) ** rare_told
        for cast, names in zip(kinds, told, strict=True)
    ]
