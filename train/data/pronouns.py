"""Captions with pronouns, by the rule with which Make-A-Story (Rahman et al. 2023) made FlintstonesSV harder."""

from __future__ import annotations

import re
from collections.abc import Sequence


WOMEN = frozenset({"wilma", "betty", "pebbles", "mabel", "nell", "pip"})  # the literature's three, and our show's
MEN = frozenset({"fred", "barney", "mr slate", "dino", "gus", "otto", "mr flagg", "rumble"})
REGULARS = WOMEN | MEN
FORMS = {  # subject, object, possessive
    "he": ("he", "him", "his"),
    "she": ("she", "her", "her"),
    "they": ("they", "them", "their"),
}
OBJECT_AFTER = re.compile(
    r"\b(to|at|with|for|from|behind|beside|near|of|about|around|by|on|over|towards?)\s*$", re.IGNORECASE
)


def with_pronouns(captions: Sequence[str], characters: Sequence[Sequence[str]]) -> list[str]:
    """Replace names by He, She or They in every caption whose characters are those of the caption before.

    Args:
        captions (`Sequence[str]`): of a story, in order.
        characters (`Sequence[Sequence[str]]`): who is in each frame, in any case and order.

    Returns:
        `list[str]`: the captions. With one character its name becomes he or she, with two "A and B" becomes they;
        names that stand alone among several people stay, since a pronoun would not say whom it means. So do all that
        are no regular of FlintstonesSV or our show: "park ranger" is no name, and has no gender that we know.

    Raises:
        ValueError: there are not as many lists of characters as captions.
    """
    if len(captions) != len(characters):
        raise ValueError(f"`characters` has {len(characters)} entries for {len(captions)} `captions`.")
    texts = [captions[0]] if captions else []
    for caption, before, now in zip(captions[1:], characters, characters[1:]):
        people = _people(now)
        if people != _people(before) or not REGULARS.issuperset(people):
            texts.append(caption)
        elif len(people) == 1:
            texts.append(_replace(caption, re.escape(people[0]), "she" if people[0] in WOMEN else "he"))
        elif len(people) == 2:
            a, b = map(re.escape, people)
            texts.append(_replace(caption, rf"(?:{a} and {b}|{b} and {a})", "they"))
        else:
            texts.append(caption)
    return texts


def _people(names: Sequence[str]) -> list[str]:
    return sorted({name.strip().lower() for name in names if name.strip()})


def _replace(caption: str, name: str, pronoun: str) -> str:
    subject, other, possessive = FORMS[pronoun]

    def form(match: re.Match) -> str:
        before = caption[: match.start()].rstrip()
        if match.group(1):
            return _cased(possessive, before)
        return _cased(other if OBJECT_AFTER.search(before) else subject, before)

    return re.sub(rf"\b{name}\b(['’]s\b)?", form, caption, flags=re.IGNORECASE)


def _cased(word: str, before: str) -> str:
    return word.capitalize() if not before or before[-1] in ".!?" else word
