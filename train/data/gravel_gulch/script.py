"""Writes the show: episodes of scenes, scenes of clips, each with a caption that says what is to be seen.

Characters persist through a scene and come back in later ones, carry things, and react to what happened before.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from dataclasses import dataclass, replace
from itertools import accumulate

from train.data.gravel_gulch.world import CAST, COLORS, FEMALE, PROPS, SETTINGS, Actor, Clip, Look


WORLDS = ("gulch", "town")
MAX_WORDS = 40
POPULARITY = {"Gus": 5.0, "Mabel": 3.0, "Otto": 3.4, "Nell": 2.6, "Pip": 1.7, "Rumble": 1.8, "Mr Flagg": 1.7}
CROWDS = {"gulch": (0.55, 0.41, 0.04), "town": (0.48, 0.38, 0.14)}  # one, two, three people a clip
HABITUAL = 0.6  # share of the turns of phrase that whoever writes an episode's captions takes out of habit
STRANGERS_ONLY, STRANGER_BESIDE = 0.12, 0.12  # shares of the show's clips

_HAIR = {
    "man": ("short", "short", "curly", "bald", "ponytail"),
    "woman": ("long", "long", "bun", "curly", "ponytail", "short"),
    "boy": ("short", "curly"),
    "girl": ("ponytail", "long", "bun", "curly"),
    "toddler": ("topknot", "curly"),
}
_KINDS = {  # of those without a name; in town a painter learns to draw all of them
    "gulch": {"man": 30, "woman": 30, "boy": 12, "girl": 12, "toddler": 7, "dinosaur": 9},
    "town": {"man": 25, "woman": 25, "boy": 10, "girl": 10, "toddler": 16, "dinosaur": 14},
}
_GARMENTS = {
    "man": ("tunic", "suit", "shirt"),
    "woman": ("dress", "dress", "shirt"),
    "boy": ("tunic", "shirt"),
    "girl": ("dress", "dress", "tunic"),
    "toddler": ("dress", "tunic"),
}
_EXTRAS = {
    "man": ("moustache", "beard", "glasses", "hat"),
    "woman": ("glasses", "bow", "hat"),
    "boy": ("glasses", "hat"),
    "girl": ("glasses", "bow"),
    "toddler": ("bow",),
}
_HAIR_COLORS = ("black", "brown", "blond", "red", "orange", "gray", "white")
_GARMENT_COLORS = tuple(color for color in COLORS if color != "blond")
_DINOSAURS = ("green", "blue", "yellow", "orange", "red")

# a plot is a chain of beats: (action, mood, does the actor hold the scene's prop)
_PLOTS = {
    "quarrel": (("talking", "happy", 0), ("talking", "angry", 0), ("pointing", "angry", 0), ("crying", "sad", 0)),
    "lunch": (("eating", "happy", 0), ("talking", "happy", 0), ("laughing", "happy", 0), ("eating", "happy", 0)),
    "find": (("walking", "happy", 0), ("holding", "surprised", 1), ("holding", "happy", 1), ("running", "happy", 0)),
    "gift": (("holding", "happy", 1), ("talking", "surprised", 0), ("laughing", "happy", 0), ("dancing", "happy", 0)),
    "nap": (("sleeping", "happy", 0), ("sleeping", "happy", 0), ("standing", "surprised", 0), ("talking", "angry", 0)),
    "party": (("waving", "happy", 0), ("dancing", "happy", 0), ("laughing", "happy", 0), ("jumping", "happy", 0)),
    "job": (("working", "happy", 0), ("working", "worried", 0), ("talking", "angry", 0), ("standing", "sad", 0)),
    "reading": (("reading", "happy", 0), ("thinking", "worried", 0), ("talking", "happy", 0), ("reading", "happy", 0)),
    "play": (("running", "happy", 0), ("jumping", "happy", 0), ("laughing", "happy", 0), ("holding", "happy", 1)),
    "loss": (("standing", "worried", 0), ("crying", "sad", 0), ("sitting", "sad", 0), ("talking", "happy", 0)),
    "idea": (("sitting", "happy", 0), ("thinking", "happy", 0), ("pointing", "surprised", 0), ("running", "happy", 0)),
    "visit": (("waving", "happy", 0), ("talking", "happy", 0), ("sitting", "happy", 0), ("laughing", "happy", 0)),
    "trip": (("driving", "happy", 0), ("sleeping", "happy", 0), ("laughing", "happy", 0), ("talking", "happy", 0)),
    "drive": (("driving", "happy", 0), ("driving", "angry", 0), ("driving", "worried", 0), ("driving", "happy", 0)),
}
_INDOORS = ("quarrel", "gift", "reading", "loss", "idea", "visit", "party")
_OUTDOORS = ("quarrel", "find", "gift", "party", "play", "loss", "idea", "visit")
_PLOTS_OF = {
    "living room": (*_INDOORS, "nap"),
    "kitchen": ("lunch", "lunch", "quarrel", "gift", "visit", "loss"),
    "bedroom": ("nap", "nap", "reading", "loss", "idea", "quarrel"),
    "dining room": ("lunch", "lunch", "visit", "quarrel", "party"),
    "quarry": ("job", "job", "quarrel", "find", "idea"),
    "office": ("job", "reading", "quarrel", "idea", "loss"),
    "bowling alley": ("party", "play", "quarrel", "visit", "gift"),
    "diner": ("lunch", "lunch", "quarrel", "visit"),
    "cave": ("find", "nap", "quarrel", "loss", "idea"),
    "car": ("drive", "drive", "trip"),
}
_ANYWHERE = tuple(name for name in _PLOTS if name not in _PLOTS_OF["car"])

_PREPOSITION = {"car": "in", "street": "on", "beach": "on", "quarry": "at", "bowling alley": "at"}
# (after "is", as a verb of its own)
_VERBS = {
    "standing": (("standing", "stands"), ("standing there quietly", "stands there quietly"), ("waiting", "waits")),
    "talking": (
        ("talking", "talks"),
        ("speaking", "speaks"),
        ("saying something to somebody", "says something to somebody"),
    ),
    "walking": (("walking", "walks"), ("walking along slowly", "walks along slowly"), ("strolling", "strolls")),
    "running": (("running", "runs"), ("running very fast", "runs very fast")),
    "driving": (("driving", "drives"), ("driving down the road", "drives down the road"), ("riding", "rides")),
    "eating": (
        ("eating", "eats"),
        ("having a drumstick", "has a drumstick"),
        ("eating a drumstick", "eats a drumstick"),
    ),
    "sleeping": (("sleeping", "sleeps"), ("asleep", "is asleep"), ("taking a nap", "takes a nap")),
    "holding": (
        ("holding {prop}", "holds {prop}"),
        ("holding {prop} in both hands", "holds {prop} in both hands"),
        ("carrying {prop}", "carries {prop}"),
    ),
    "pointing": (("pointing", "points"), ("pointing at something", "points at something")),
    "sitting": (("sitting", "sits"), ("sitting on a rock", "sits on a rock")),
    "laughing": (("laughing", "laughs"), ("laughing out loud", "laughs out loud")),
    "waving": (("waving", "waves"), ("waving hello with one hand", "waves hello with one hand")),
    "dancing": (("dancing", "dances"), ("dancing to the music", "dances to the music")),
    "crying": (("crying", "cries"), ("in tears", "is in tears")),
    "thinking": (("thinking", "thinks"), ("thinking about something", "thinks about something")),
    "working": (("working", "works"), ("working with a hammer", "works with a hammer")),
    "reading": (("reading", "reads"), ("reading a book", "reads a book")),
    "jumping": (("jumping", "jumps"), ("jumping up and down", "jumps up and down")),
}
_MOODS = {
    "happy": ("happy", "cheerful", "glad"),
    "angry": ("angry", "mad", "annoyed"),
    "sad": ("sad", "unhappy", "upset"),
    "surprised": ("surprised", "shocked", "amazed"),
    "worried": ("worried", "nervous", "scared"),
}
# any of an action's words, a mood's or a prop's
_TOLD = {
    name: re.compile(rf"\b(?:{'|'.join(sorted({re.escape(word.split(' {')[0]) for word in words}))})\b")
    for name, words in {
        **{action: [word for verb in verbs for word in verb] for action, verbs in _VERBS.items()},
        **_MOODS,
        **{prop: (prop,) for prop in PROPS},
    }.items()
}
TELLABLE = tuple(_TOLD)


def told(caption: str) -> set[str]:
    """Which actions, moods and props a caption of either world tells. "Holding a book" tells of both."""
    return {name for name, words in _TOLD.items() if words.search(caption)}


def words_of_the_show() -> set[str]:
    """Every word, lower case, that a caption of either world may hold: what a model of the show can know."""
    words: set[str] = set()
    for world in WORLDS:
        for seed in range(40):
            for clip in episode(world, 900_000 + seed, 40):
                words.update("".join(c if c.isalpha() else " " for c in clip.caption.lower()).split())
    return words


def episode(world: str, seed: int, clips: int, anywhere: float = 0.0) -> list[Clip]:
    """One episode, the same for the same arguments.

    Args:
        world (`str`): `"gulch"`, the show with its cast, or `"town"`, where no regular ever appears.
        seed (`int`): governs everything.
        clips (`int`): how many, at least 1.

    Raises:
        ValueError: an argument is outside what is said above.
    """
    if world not in WORLDS:
        raise ValueError(f"`world` is {world!r}, but must be one of {', '.join(WORLDS)}.")
    if clips < 1:
        raise ValueError(f"`clips` is {clips}, but an episode has at least 1.")
    if not 0 <= anywhere <= 1:
        raise ValueError(f"`anywhere` is {anywhere}, but must be between 0 and 1.")
    rng = random.Random(f"{world} {seed}")
    strangers = [stranger(rng, world) for _ in range(3 if world == "gulch" else 5)]
    if world == "gulch":
        stars = _weighted_sample(rng, list(CAST), [POPULARITY[look.name] for look in CAST], 4)
    else:
        stars = strangers[:4]
    out: list[Clip] = []
    writer, setting = _Writer(rng), None
    while len(out) < clips:
        setting = rng.choice([name for name in SETTINGS if name != setting])
        scene = _Scene(writer, world, setting, stars, strangers, anywhere)
        for _ in range(min(rng.randint(2, 5), clips - len(out))):
            out.append(scene.clip())
    return out


def stranger(rng: random.Random, world: str = "gulch") -> Look:
    """Somebody without a name, who looks like no regular."""
    kinds = _KINDS[world]
    while True:
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        if kind == "dinosaur":
            color = rng.choice(_DINOSAURS)
            pattern = rng.choice(("plain", "spotted"))
            return Look(None, kind, "big", "bald", color, "none", color, pattern)
        look = Look(
            name=None,
            kind=kind,
            build=rng.choice(("big", "tall", "small", "average", "average"))
            if kind in ("man", "woman")
            else "average",
            hair_style=rng.choice(_HAIR[kind]),
            hair_color=rng.choice(_HAIR_COLORS),
            garment=rng.choice(_GARMENTS[kind]),
            garment_color=rng.choice(_GARMENT_COLORS),
            pattern=rng.choices(("plain", "spotted", "striped"), (65, 20, 15))[0],
            extra=rng.choice(_EXTRAS[kind]) if rng.random() < 0.25 else None,
        )
        if look.garment == "suit":
            look = replace(look, pattern="plain")
        if not any(_alike(look, regular) for regular in CAST):
            return look


def _alike(look: Look, regular: Look) -> bool:
    if look.hair_style == regular.hair_style == "bald" and look.garment_color == regular.garment_color:
        return True
    clothes = (look.garment, look.garment_color) == (regular.garment, regular.garment_color)
    hair = (look.hair_style, look.hair_color) == (regular.hair_style, regular.hair_color)
    return (clothes and hair) or (look.kind == regular.kind == "toddler" and (clothes or hair))


def _weighted_sample(rng: random.Random, items: list, weights: list[float], count: int) -> list:
    """Different `items`, the weightier ones likelier and earlier."""
    keys = [rng.random() ** (1 / weight) for weight in weights]
    return [item for _, item in sorted(zip(keys, items, strict=True), key=lambda pair: -pair[0])][:count]


class _Writer:
    """Who writes an episode's captions: one person, whose habits show the better the more of them one has read."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.habits: dict[object, float] = {}

    def draw(self, decision: object) -> float:
        """0 to 1: the same again for the same `decision` in HABITUAL of the cases."""
        usual = self.habits.setdefault(decision, self.rng.random())
        return usual if self.rng.random() < HABITUAL else self.rng.random()

    def choose(self, options: tuple, weights: tuple[float, ...] | None = None):
        """One of `options`."""
        weights = weights or (1,) * len(options)
        bounds = list(accumulate(weights))
        return options[bisect(bounds, self.draw(options) * bounds[-1])]


@dataclass
class _Part:
    """Somebody in a clip, before a place is found for them."""

    look: Look
    action: str
    mood: str
    prop: str | None


class _Scene:
    """Clips in one setting, among people who stay."""

    def __init__(
        self,
        writer: _Writer,
        world: str,
        setting: str,
        stars: list[Look],
        strangers: list[Look],
        anywhere: float,
    ):
        self.writer, self.rng, self.world, self.setting = writer, writer.rng, world, setting
        rng = writer.rng
        weights = [POPULARITY[look.name] if look.name else 1.0 for look in stars]
        self.members = _weighted_sample(rng, stars, weights, 3)
        self.strangers = strangers
        plots = _PLOTS_OF.get(setting, _OUTDOORS)
        if anywhere and setting != "car" and rng.random() < anywhere:
            plots = _ANYWHERE
        self.plot = _PLOTS[rng.choice(plots)]
        self.prop = rng.choice(PROPS)
        self.beat = 0
        self.last: list[Look] = []

    def clip(self) -> Clip:
        rng = self.rng
        action, mood, holds = self.plot[self.beat % len(self.plot)]
        self.beat += 1
        looks = self._present()
        parts = [_Part(looks[0], action, mood, self.prop if holds else None)]
        together = rng.random() < 0.45
        for look in looks[1:]:
            parts.append(_Part(look, *self._answer(action, mood, together)))
        while True:
            caption = _caption(self.writer, self.setting, parts)
            if len(caption.split()) <= MAX_WORDS:
                break
            parts = parts[:-1]
        self.last = [part.look for part in parts]
        return Clip(self.setting, self._placed(parts), caption, rng.randrange(2**31))

    def _present(self) -> list[Look]:
        rng = self.rng
        count = rng.choices((1, 2, 3), CROWDS[self.world])[0]
        if self.world == "gulch" and rng.random() < STRANGERS_ONLY:
            return self.strangers[: min(count, 2)]
        stayed = [look for look in self.last if look in self.members]
        first = rng.choice(stayed) if stayed and rng.random() < 0.85 else self.members[0]
        others = [look for look in self.members if look is not first]
        rng.shuffle(others)
        looks = [first, *others][:count]
        if self.world == "gulch" and count > 1 and rng.random() < STRANGER_BESIDE:
            looks[-1] = rng.choice(self.strangers)
        return looks

    def _answer(self, action: str, mood: str, together: bool) -> tuple[str, str, str | None]:
        """What the others do while the first does `action`."""
        rng = self.rng
        if action == "driving" or together and action != "holding":
            return action, mood, None
        if self.setting == "car":
            return "driving", "happy", None
        if action == "talking":
            return rng.choice(("talking", "standing", "laughing" if mood == "happy" else "standing")), mood, None
        if action == "crying":
            return rng.choice(("standing", "talking")), "worried", None
        if action == "sleeping":
            return rng.choice(("reading", "standing", "sitting")), "happy", None
        if rng.random() < 0.12:
            return "holding", "happy", rng.choice(PROPS)
        return rng.choice(("standing", "talking", "laughing", "sitting", "waving")), "happy", None

    def _placed(self, parts: list[_Part]) -> tuple[Actor, ...]:
        rng = self.rng
        middles = {1: (0.5,), 2: (0.28, 0.72), 3: (0.19, 0.5, 0.81)}[len(parts)]
        spread = 0.1 if len(parts) == 1 else 0.025
        actors = []
        for part, middle in zip(parts, middles, strict=True):
            x = middle + rng.uniform(-spread, spread)
            facing = (1 if x < 0.5 else -1) if len(parts) > 1 else rng.choice((-1, 1))
            if all(part.action in ("running", "walking") for part in parts):
                facing = 1  # the same way, not into each other
            actors.append(Actor(part.look, part.action, x, facing, part.mood, part.prop))
        return tuple(actors)


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def description(look: Look, full: bool = True) -> str:
    """Somebody by their looks: "a tall woman with long red hair in a green dress"."""
    pattern = "" if look.pattern == "plain" else f"{look.pattern} "
    if look.kind == "dinosaur":
        return _article(f"{pattern}{look.garment_color} dinosaur")
    build = f"{look.build} " if look.build != "average" else ""
    bald = "bald " if look.hair_style == "bald" else ""
    clothes = _article(f"{pattern}{look.garment_color} {look.garment}")
    if not full:
        return f"{_article(bald + look.kind)} in {clothes}"
    color = look.hair_color
    hair = {
        "short": f"short {color} hair",
        "long": f"long {color} hair",
        "curly": f"curly {color} hair",
        "bun": _article(f"{color} bun"),
        "topknot": _article(f"{color} topknot"),
        "ponytail": _article(f"{color} ponytail"),
        "bald": "",
    }[look.hair_style]
    extra = {"moustache": f"a {color} moustache", "beard": f"a {color} beard"}.get(
        look.extra or "", {"glasses": "glasses", "hat": "a hat", "bow": "a bow"}.get(look.extra or "", "")
    )
    features = " and ".join(part for part in (hair, extra) if part)
    return f"{_article(build + bald + look.kind)}{' with ' + features if features else ''} in {clothes}"


def _pronoun(look: Look) -> str:
    if look.name:
        return "She" if look.name in FEMALE else "He"
    return {"woman": "She", "girl": "She", "toddler": "She", "dinosaur": "It"}.get(look.kind, "He")


def _again(look: Look) -> str:
    """A second mention."""
    return look.name or f"the {look.kind}"


def _caption(writer: _Writer, setting: str, parts: list[_Part]) -> str:
    full = len(parts) < 3
    names = [part.look.name or description(part.look, full) for part in parts]
    weights = {"living room": (6, 3, 1)}.get(setting, (5, 2, 1))
    word = writer.choose(SETTINGS[setting], weights[: len(SETTINGS[setting])])
    where = f"{_PREPOSITION.get(setting, 'in')} {writer.choose(('the', 'a'), (3, 1))} {word}"
    where = where.replace(" a office", " an office")
    if len(parts) == 1:
        text = _one(writer, where, parts[0], names[0])
    elif len({(part.action, part.mood, part.prop) for part in parts}) == 1:
        text = _same(writer, where, parts, names)
    else:
        text = _different(writer, where, parts, names)
    return _joined(writer, text[0].upper() + text[1:])


def _joined(writer: _Writer, text: str) -> str:
    """Now and then two sentences become one, as people write who are asked for a caption."""
    for subject in ("He", "She", "They", "It"):
        if f". {subject} " in text and writer.draw("joined") < 0.4:
            text = text.replace(f". {subject} ", f" and {subject.lower()} ", 1)
    return text


def _verb(writer: _Writer, part: _Part, finite: bool = False) -> str:
    verb = writer.choose(_VERBS[part.action])[int(finite)]
    return verb.replace("{prop}", _article(part.prop)) if part.prop else verb


def _feels(writer: _Writer, part: _Part) -> str:
    """ "looks angry", "is mad", or "" where the mood is the ordinary one and nobody remarks on it."""
    if part.mood == "happy" and writer.draw("silent") < 0.65 or part.action in ("crying", "laughing", "sleeping"):
        return ""
    if part.mood == "happy" and part.action not in ("talking", "eating") and writer.draw("smile") < 0.4:
        return "has a big smile"
    return f"{writer.choose(('is', 'looks'), (1, 2))} {writer.choose(_MOODS[part.mood])}"


def _one(writer: _Writer, where: str, part: _Part, name: str) -> str:
    he, feels, way = _pronoun(part.look), _feels(writer, part), writer.draw("one")
    after = f". {he} {feels}." if feels else "."
    if way < 0.42:
        if feels and writer.draw("and") < 0.3:
            after = f" and {feels}."
        return f"{name} is {_verb(writer, part)} {where}{after}"
    if way < 0.72:
        return f"{name} is {where}. {he} is {_verb(writer, part)}{' and ' + feels if feels else ''}."
    if way < 0.86:
        return f"{name} {_verb(writer, part, True)} {where}{after}"
    if part.action in ("talking", "holding", "pointing", "laughing", "waving", "crying", "thinking", "reading"):
        return f"{name} is standing {where}. {he} {_verb(writer, part, True)}{after}"
    return f"in this scene {name} is {_verb(writer, part)} {where}{after}"


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _same(writer: _Writer, where: str, parts: list[_Part], names: list[str]) -> str:
    all_of_them = _listed(names)
    verb, feels = _verb(writer, parts[0]), _feels(writer, parts[0])
    feels = feels.replace("looks", "look").replace("is ", "are ").replace("has a big smile", "have big smiles")
    tail = f" They {feels}." if feels else ""
    way = writer.draw("same")
    if parts[0].action == "talking" and len(parts) == 2 and way < 0.5:
        return f"{names[0]} is talking to {names[1]} {where}.{tail}"
    if way < 0.7:
        return f"{all_of_them} are {verb} {where}.{tail}"
    return f"{all_of_them} are {where}. They are {verb}{' and ' + feels if feels else ''}."


def _different(writer: _Writer, where: str, parts: list[_Part], names: list[str]) -> str:
    pronouns = [_pronoun(part.look) for part in parts]
    clear = len(set(pronouns)) == len(pronouns)
    way = writer.draw("different")
    if len(parts) == 2 and parts[0].action == "talking" and parts[1].action == "standing" and way < 0.6:
        feels = _feels(writer, parts[0])
        who = pronouns[0] if clear else _again(parts[0].look)
        tail = f" {who[0].upper() + who[1:]} {feels}." if feels else ""
        return f"{names[0]} is {writer.choose(('talking', 'speaking'))} to {names[1]} {where}.{tail}"
    if way < 0.5:
        clauses = []
        for part, pronoun in zip(parts, pronouns, strict=True):
            who = pronoun.lower() if clear else _again(part.look)
            clauses.append(f"{who} is {_verb(writer, part)}")
        feels = _feels(writer, parts[0])
        first = clauses[0] + (f" and {feels}" if feels else "")
        second = f"{first} while {clauses[1]}" if len(clauses) == 2 else f"{first}, {_listed(clauses[1:])}"
        return f"{_listed(names)} are {where}. {second[0].upper() + second[1:]}."
    text = f"{names[0]} is {_verb(writer, parts[0])} {where}"
    rest = [f"{name} is {_verb(writer, part)}" for name, part in zip(names[1:], parts[1:], strict=True)]
    if len(rest) == 1 and way < 0.7:
        who = pronouns[1] if clear else _again(parts[1].look)
        return f"{text} with {names[1]}. {who[0].upper() + who[1:]} is {_verb(writer, parts[1])}."
    feels = _feels(writer, parts[0])
    text += f" and {feels}" if feels else ""
    return f"{text}. {'. '.join(sentence[0].upper() + sentence[1:] for sentence in rest)}."
