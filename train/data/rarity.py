"""How rare a character is, or a kind of people: what the trainers draw the rare ones oftener by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def rarities(counts: Mapping[str, int]) -> dict[str, float]:
    """Each name's rarity from how often it is seen: 1 for the most frequent, 2 for one seen half as often."""
    most = max(counts.values(), default=0)
    return {name: most / count for name, count in counts.items()}


def rarest(names: Iterable[str], rarity: Mapping[str, float]) -> float:
    """The rarity of the rarest of some names; 1 where there is none, or none that `rarity` knows."""
    return max((rarity.get(name, 1.0) for name in names), default=1.0)
