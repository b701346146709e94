"""What FlintstonesSV says of its clips: ids, captions, characters, boxes, the split, and the rule that makes stories.

Everything here reads files that somebody downloaded: sizes, shapes and ids are checked before they are believed.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


ANNOTATIONS = "flintstones_annotations_v1-0.json"
SPLIT = "train-val-test_split.json"
KEY_FRAMES = (9, 39, 69)  # of 75, from 0: those with boxes
SAMPLED = (9, 24, 39, 54, 69)  # the five that our own show keeps; which ones the real bundle keeps is not known
CLIP_ID = re.compile(r"s_(\d{2})_e_(\d{2})_shot_(\d{6})_(\d{6})", re.ASCII)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")  # half of a surrogate pair is no character
MAX_JSON_BYTES = 1 << 30  # the real annotations are far below; parsing takes several times the file's size of memory
MAX_PICKLE_BYTES = 1 << 28
MAX_PICKLE_ITEMS = 20_000_000
PLAIN_OPCODES = frozenset(  # of pickles that build dicts, lists, strings and numbers, or say what else they ask for
    b"(.02FGIJKLMNPQSTUVX]acdeghijlpqrsu}BC\x80\x88\x89\x8a\x8b\x8c\x8d\x8e\x93\x94\x95"
)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ClipRecord:
    """What the annotations say of one clip.

    Args:
        id (`str`): its `globalID`.
        caption (`str`): the description, without line breaks, control characters, double or outer blanks.
        setting (`str`): where it plays, lower case; empty if the record does not say.
        characters (`list[str]`): the characters' entity labels, stripped and lower case, largest first.
        boxes (`list[tuple[Box | None, ...]]`): of each character at the three key frames (numbers 9, 39 and 69 of 75,
            from 0), (x1, y1, x2, y2) as the file has them, usually in pixels of the 640 x 480 original; `None` where a
            character is out of the picture.
    """

    id: str
    caption: str
    setting: str
    characters: list[str]
    boxes: list[tuple[Box | None, ...]] = field(default_factory=list)


def check_id(id: str) -> str:
    """Return a clip's id if it is of the grammar `s_SS_e_EE_shot_FFFFFF_GGGGGG`.

    Raises:
        ValueError: it is not; ids become file names, so nothing else may pass.
    """
    if not isinstance(id, str) or CLIP_ID.fullmatch(id) is None:
        shown = repr(id[:60]) if isinstance(id, str) else f"a {type(id).__name__}"  # it may be of any size or depth
        raise ValueError(f"`id` is {shown}, but a clip's id has the form 's_01_e_02_shot_000300_000374'.")
    return id


def episode_of(id: str) -> str:
    """Season and episode of a clip: `"s_01_e_02"`."""
    return id[:9]


def followings_of(splits: Mapping[str, Sequence[str]], count: int) -> dict[str, list[str]]:
    """The next `count` annotated clips of the same episode, for every clip that has so many.

    Ids of all splits are sorted together, as the literature's `following_cache` does.
    """
    ids = sorted(id for split in splits.values() for id in split)
    return {
        ids[i]: ids[i + 1 : i + 1 + count]
        for i in range(len(ids) - count)
        if episode_of(ids[i]) == episode_of(ids[i + count])
    }


def stories_of(
    splits: Mapping[str, Sequence[str]], length: int = 5, followings: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[list[str]]]:
    """Stories of every split: each clip with the next `length - 1` annotated clips of its episode.

    A clip that has too few followers in its episode starts no story. Stories keep the order of the split's list.

    Args:
        splits (`Mapping[str, Sequence[str]]`): ids of each split.
        length (`int`): frames of a story, at least 1.
        followings (`Mapping[str, Sequence[str]]`, *optional*): use this table, as `read_followings` reads it, instead
            of the rule; a start whose table entry is too short, or leaves the split's clips, starts no story.

    Raises:
        ValueError: `length` is below 1.
    """
    if length < 1:
        raise ValueError(f"`length` is {length}, but a story has at least 1 frame.")
    table = followings_of(splits, length - 1) if followings is None else followings
    stories = {}
    for name, ids in splits.items():
        known = set(ids)
        starts = [id for id in ids if len(table.get(id, ())) >= length - 1 and id in table]
        made = [[id, *table[id][: length - 1]] for id in starts]
        stories[name] = [story for story in made if known.issuperset(story)] if followings is not None else made
    return stories


def read_split(path: Path) -> dict[str, list[str]]:
    """Read a split file: lists of clip ids by the split's name.

    Raises:
        ValueError: not JSON, not of that shape, an id not of the grammar, or an id in two places.
    """
    return check_splits(read_json(path), path)


def check_splits(splits: object, path: Path | str) -> dict[str, list[str]]:
    """What `read_split` checks of a split file's content; `path` is what messages call it."""
    if not isinstance(splits, dict) or not all(isinstance(ids, list) for ids in splits.values()):
        raise ValueError(f"{path} must hold one object of lists of clip ids.")
    seen = set()
    for name, ids in splits.items():
        for id in ids:
            try:
                check_id(id)
            except ValueError as error:
                raise ValueError(f"{path}, split {name!r}: {error}") from None
            if id in seen:
                raise ValueError(f"{path} holds {id} twice.")
            seen.add(id)
    return splits


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> object:
    """Parse a JSON file.

    Raises:
        ValueError: the file is missing, larger than `max_bytes`, cut off or not JSON.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= max_bytes else None
    except (FileNotFoundError, NotADirectoryError):
        found = ", ".join(sorted(os.listdir(path.parent))[:8]) if path.parent.is_dir() else "no such folder"
        raise ValueError(f"{path} is missing; {path.parent} holds: {found or 'nothing'}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    if raw is None:
        raise ValueError(f"{path} has {size:,} bytes; more than {max_bytes:,} are not read. Is it the right file?")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:  # ValueError: also wrong UTF-8, or a number of thousands of digits
        raise ValueError(f"{path} is not whole JSON ({error}); fetch or write it again.") from None


def tidy(text: str) -> str:
    """One line without control characters, double or outer blanks; every script and sign else is kept."""
    return " ".join(CONTROLS.sub(" ", text).split())


def read_record(record: object) -> ClipRecord | None:
    """One annotation as a `ClipRecord`, or `None` if it lacks an id of the grammar or a caption."""
    if not isinstance(record, dict):
        return None
    id, description = record.get("globalID"), record.get("description")
    if not isinstance(id, str) or CLIP_ID.fullmatch(id) is None or not isinstance(description, str):
        return None
    caption = tidy(description)
    if not caption:
        return None
    setting, characters = record.get("setting"), record.get("characters")
    labels, boxes = [], []
    for character in characters if isinstance(characters, list) else ():
        label = character.get("entityLabel") if isinstance(character, dict) else None
        if isinstance(label, str) and tidy(label):
            labels.append(tidy(label).lower())
            boxes.append(_read_boxes(character.get("rectangles")))
    return ClipRecord(id, caption, tidy(setting).lower() if isinstance(setting, str) else "", labels, boxes)


def _read_boxes(rectangles: object) -> tuple[Box | None, ...]:
    if not isinstance(rectangles, list):
        return (None, None, None)
    boxes = [_read_box(rectangle) for rectangle in rectangles[:3]]
    return tuple(boxes + [None] * (3 - len(boxes)))


def _read_box(rectangle: object) -> Box | None:
    if not isinstance(rectangle, list) or len(rectangle) != 4:
        return None
    if not all(type(value) in (int, float) and -1e5 < value < 1e5 for value in rectangle):
        return None
    x1, y1, x2, y2 = map(float, rectangle)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


class _NotPlain(ValueError):
    pass


def _refuse(_: pickle._Unpickler) -> None:
    raise _NotPlain("holds a tuple, a set or an object, or is no pickle at all")


class _PlainUnpickler(pickle._Unpickler):
    """Builds plain values; whatever would import or call something is refused.

    The unpickler written in Python: that in C takes gigabytes of memory for a single opcode that numbers a memo high.
    """

    dispatch = dict.fromkeys(range(256), _refuse) | {
        opcode: load for opcode, load in pickle._Unpickler.dispatch.items() if opcode in PLAIN_OPCODES
    }

    def find_class(self, module: str, name: str) -> object:
        raise _NotPlain(f"asks for {module}.{name}")

    def persistent_load(self, pid: object) -> object:
        raise _NotPlain("holds a persistent id")


def read_plain_pickle(path: Path) -> object:
    """Read a pickle of dicts, lists, strings and integers, as FlintstonesSV ships its caches; never run code.

    Raises:
        ValueError: the file is missing, too large, broken, or holds anything else.
    """
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise _NotPlain(f"has more than {MAX_PICKLE_BYTES:,} bytes")
        value = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        _check_plain(value)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except _NotPlain as error:
        raise ValueError(f"{path} is not a plain pickle of dict, list, str and int: it {error}.") from None
    except Exception as error:  # a broken or hostile pickle may raise whatever it likes from inside the unpickler
        raise ValueError(
            f"{path} is not a whole pickle ({type(error).__name__}: {error}); fetch or write it again."
        ) from None
    return value


def _check_plain(value: object) -> None:
    """Nothing but dict, list, str and int, and no more of them than fit: a list within itself never ends, and ten
    lists in which each holds the next one ten times are ten milliards of items."""
    stack, nests, count = [value], {}, 0
    while stack:
        item = stack.pop()
        count += 1
        if type(item) in (dict, list):
            if id(item) not in nests:
                inside = [*item.keys(), *item.values()] if type(item) is dict else item
                nests[id(item)] = any(type(value) in (dict, list) for value in inside)
                stack.extend(inside)
            elif nests[id(item)]:
                raise _NotPlain("holds one list of lists in two places")
            else:
                count += 2 * len(item)
        elif type(item) not in (str, int):
            raise _NotPlain(f"holds a {type(item).__name__}")
        if count > MAX_PICKLE_ITEMS:
            raise _NotPlain(f"holds more than {MAX_PICKLE_ITEMS:,} items")


def read_followings(path: Path) -> dict[str, list[str]]:
    """Read `following_cacheK.pkl`: the next K ids of each clip. Entries at the very end of the data may be shorter.

    Raises:
        ValueError: not a plain pickle, or not of that shape, or an id not of the grammar.
    """
    table = read_plain_pickle(path)
    if not isinstance(table, dict) or not all(isinstance(ids, list) for ids in table.values()):
        raise ValueError(f"{path} must hold a dict of lists of clip ids.")
    for start, ids in table.items():
        for id in (start, *ids):
            try:
                check_id(id)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
    return table
