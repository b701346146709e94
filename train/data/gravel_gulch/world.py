"""What there is in Gravel Gulch and in generic town: the words that the writer writes and the artist draws.

Everything here is plain data. `script.py` makes `Clip`s out of it, `drawing.py` paints them, neither knows the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Look:
    """How somebody is drawn, and what is said of somebody who has no name.

    `name` is one of `REGULARS` for the regulars and `None` for everybody else.
    """

    name: str | None
    kind: str  # one of KINDS
    build: str  # one of BUILDS
    hair_style: str  # one of HAIR_STYLES
    hair_color: str  # a key of COLORS
    garment: str  # one of GARMENTS
    garment_color: str  # a key of COLORS
    pattern: str = "plain"  # one of PATTERNS
    extra: str | None = None  # one of EXTRAS


@dataclass(frozen=True)
class Actor:
    """Somebody in a clip: who, where, and what they do.

    `x` is the middle of the body as a share of the frame's width, from the left. `facing` is -1 (left) or 1 (right).
    """

    look: Look
    action: str  # one of ACTIONS
    x: float
    facing: int
    mood: str = "happy"  # one of MOODS
    holding: str | None = None  # one of PROPS


@dataclass(frozen=True)
class Clip:
    """75 frames of one shot: what the artist needs, and the caption that goes with it."""

    setting: str  # a key of SETTINGS
    actors: tuple[Actor, ...]
    caption: str
    seed: int  # governs every drawn detail that no caption mentions
    objects: tuple[str, ...] = field(default=())  # PROPS that stand in the scene without being held


COLORS = {
    "red": "#d8352a",
    "orange": "#f28a1e",
    "yellow": "#f7cf32",
    "green": "#3f9a45",
    "teal": "#1f9a96",
    "blue": "#2f62c4",
    "purple": "#8a4fbd",
    "pink": "#f286b4",
    "brown": "#8a5a32",
    "black": "#26222b",
    "gray": "#8d9097",
    "white": "#f6f3ea",
    "blond": "#f3d467",
}

KINDS = ("man", "woman", "boy", "girl", "toddler", "dinosaur")
BUILDS = ("big", "tall", "small", "average")
HAIR_STYLES = ("short", "bun", "long", "topknot", "bald", "curly", "ponytail")
GARMENTS = ("tunic", "dress", "suit", "shirt", "none")
PATTERNS = ("plain", "spotted", "striped")
EXTRAS = ("moustache", "beard", "glasses", "hat", "bow")
MOODS = ("happy", "angry", "sad", "surprised", "worried")

ACTIONS = (
    "standing",
    "talking",
    "walking",
    "running",
    "driving",
    "eating",
    "sleeping",
    "holding",
    "pointing",
    "sitting",
    "laughing",
    "waving",
    "dancing",
    "crying",
    "thinking",
    "working",
    "reading",
    "jumping",
)

PROPS = (
    "bone",
    "club",
    "rock",
    "ball",
    "flower",
    "fish",
    "drumstick",
    "cup",
    "book",
    "basket",
    "phone",
    "hammer",
    "box",
)

# setting -> the words a caption may use for it; the first is the annotation's `setting`
SETTINGS = {
    "living room": ("living room", "room", "lounge"),
    "kitchen": ("kitchen",),
    "bedroom": ("bedroom",),
    "dining room": ("dining room",),
    "yard": ("yard", "front yard", "garden"),
    "quarry": ("quarry",),
    "car": ("car",),
    "street": ("street", "road"),
    "office": ("office",),
    "bowling alley": ("bowling alley",),
    "beach": ("beach",),
    "cave": ("cave",),
    "diner": ("diner", "restaurant"),
    "park": ("park",),
}

# the fixed cast, in the order of every label vector of ours
GUS = Look("Gus", "man", "big", "short", "black", "tunic", "orange", "spotted")
MABEL = Look("Mabel", "woman", "tall", "bun", "red", "dress", "white")
OTTO = Look("Otto", "man", "small", "short", "blond", "tunic", "brown")
NELL = Look("Nell", "woman", "average", "long", "black", "dress", "teal")
PIP = Look("Pip", "toddler", "small", "topknot", "orange", "dress", "pink")
RUMBLE = Look("Rumble", "dinosaur", "big", "bald", "purple", "none", "purple", "spotted")
FLAGG = Look("Mr Flagg", "man", "average", "bald", "white", "suit", "blue", "plain", "moustache")
CAST = (GUS, MABEL, OTTO, NELL, PIP, RUMBLE, FLAGG)
REGULARS = tuple(look.name for look in CAST)
FEMALE = frozenset({"Mabel", "Nell", "Pip"})
