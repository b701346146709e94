"""Look a release over: what is in it, what is missing, what is broken, what is odd. Nothing is repaired or changed.

    python -m train.data.check ROOT
    python -m train.data.check ROOT --frames all --tokenizer SD15/tokenizer --json report.json --plot report.png

ROOT is FlintstonesSV, or any show, in a layout of `train.data.layouts`. A folder that holds only the split file is
enough for the numbers of clips, episodes and stories; one with the split and the annotations, for all but the frames.

Damage is what training would stumble over or silently lose: frames or annotations that the split asks for and that
are missing, frames that cannot be read, captions without a word. All else that is odd is counted as a finding: the
readers put it right themselves, or it is for you to judge.

The exit status is 0 for a sound release, 1 for a damaged or unreadable one, 2 for a mistake in the command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from train.data.annotations import ANNOTATIONS, CONTROLS, SPLIT, ClipRecord, episode_of, read_record, stories_of
from train.data.flintstones import CASTS
from train.data.layouts import (
    ARCHIVES,
    FILE_FOLDERS,
    HDF5,
    SHARDS,
    STORYGPTV_FOLDER,
    STORYGPTV_SPLIT,
    Layout,
    NoFrames,
    StoryGPTV,
    recognise,
)


FRAME_CHECKS = ("quick", "all")
SPLIT_ORDER = ("train", "val", "test")
CLIP_TOKENS = 77  # with the two that begin and end a text; CLIP reads no more
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
BIN = 5  # words
TOP_SETTINGS = 20
EXAMPLES = 3  # ids in a line of the table; the JSON has them all
DIRTY = {  # what `tidy` removes, and the sign that AR-LDM's HDF5 puts between captions
    "outer_blanks": re.compile(r"\A\s|\s\Z"),
    "double_blanks": re.compile(r"[^\S\r\n]{2}"),
    "newlines": re.compile(r"[\r\n]"),
    "control_characters": re.compile(rf"(?![\r\n]){CONTROLS.pattern}"),
    "vertical_bars": re.compile(r"\|"),
}
PRONOUN = re.compile(r"\b(?:he|she|they|him|her|them)\b", re.IGNORECASE)
SENTENCE_GAP = re.compile(r"(?<!\bmr)(?<!\bmrs)(?<!\bdr)[.!?]+[\"'”’)]*\s+", re.IGNORECASE)
DAMAGE = {
    "missing_frames": "frames missing",
    "broken_frames": "frames broken",
    "missing_annotations": "annotations missing",
    "empty_captions": "captions empty",
}


def check(
    root: str | os.PathLike, tokenizer: str | os.PathLike | None = None, frames: str = "quick"
) -> dict[str, object]:
    """Inspect a release.

    Args:
        root (`str | os.PathLike`): a folder, file or address that `recognise` knows, or a folder with a split file.
        tokenizer (`str | os.PathLike`, *optional*): folder of a CLIP tokenizer; without it no tokens are counted.
        frames (`str`): `"quick"` reads the header and the first frame of every clip; `"all"` reads every frame, and
            looks for blank clips and for identical ones.

    Returns:
        `dict[str, object]`: what JSON can hold. `stories` and `stories_of_4` are those of the split file alone, as the
        literature counts them; `usable_stories` and `usable_stories_of_4` are those left without the damaged clips.
        `frames`, `annotations`, `captions`, `characters`, `settings` and all of usable are `None` where the release
        has nothing to count them from. `damage` has the number of clips by kind.

    Raises:
        ValueError: no known layout, a file of the release cannot be read, or an argument is not as said above.
    """
    if frames not in FRAME_CHECKS:
        raise ValueError(f"`frames` is {frames!r}, but must be one of {FRAME_CHECKS}.")
    count_tokens = None if tokenizer is None else load_token_counter(tokenizer)
    with _untouched(root) as (place, real_names):
        layout, has_records, has_frames = _open(place)
        splits = layout.splits()
        splits = {name: splits[name] for name in sorted(splits, key=_split_place)}
        ids = [id for split_ids in splits.values() for id in split_ids]
        kind = layout.name if has_frames else NoFrames.name if has_records else "the split file alone"
        report: dict[str, object] = {"root": str(root), "layout": kind, **_of_split(layout, splits)}
        records, raw, annotations = _read_records(layout, ids) if has_records else ({}, {}, None)
        pictures = _of_frames(layout, ids, frames == "all", real_names) if has_frames else None
        usable = None
        if has_records:
            lost = {id for id in ids if id not in records}
            if pictures is not None:
                lost.update(pictures["missing"], (clip["id"] for clip in pictures["broken"]))
            usable = {name: [id for id in split_ids if id not in lost] for name, split_ids in splits.items()}
        report["usable_clips"] = usable and {name: len(split_ids) for name, split_ids in usable.items()}
        report["usable_stories"] = usable and _count_stories(layout, usable, 5)
        report["usable_stories_of_4"] = usable and _count_stories(layout, usable, 4)
    report["frames"], report["annotations"] = pictures, annotations
    report["captions"] = _of_captions(records, raw, count_tokens) if has_records else None
    report["characters"] = _of_characters(records) if has_records else None
    report["settings"] = _of_settings(records) if has_records else None
    report["damage"] = {
        "missing_frames": len(pictures["missing"]) if pictures is not None else 0,
        "broken_frames": len(pictures["broken"]) if pictures is not None else 0,
        "missing_annotations": len(annotations["missing"]) if annotations is not None else 0,
        "empty_captions": len(report["captions"]["empty"]) if has_records else 0,
    }
    return report


def load_token_counter(folder: str | os.PathLike) -> Callable[[list[str]], list[int]]:
    """A function that says how many CLIP tokens each of some captions has, begin and end included.

    Raises:
        ValueError: `folder` is not that of a CLIP tokenizer.
    """
    if not any((Path(folder) / name).is_file() for name in TOKENIZER_FILES):  # or transformers makes up an empty one
        raise ValueError(f"`tokenizer` {folder} is no folder with {' or '.join(TOKENIZER_FILES)}.")
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever is wrong in a file shows as any error of two libraries
        raise ValueError(f"`tokenizer` {folder} cannot be read as a CLIP tokenizer: {error}") from None

    def count(captions: list[str]) -> list[int]:
        lengths = []
        for start in range(0, len(captions), 1000):
            texts = captions[start : start + 1000]
            lengths += map(len, tokenizer(texts, truncation=False, verbose=False)["input_ids"])
        return lengths

    return count


@contextmanager
def _untouched(root: str | os.PathLike) -> Iterator[tuple[str | os.PathLike, Callable[[str], str]]]:
    """Where to open `root`, and how to turn messages from there into messages about `root`.

    Opening a packed archive leaves an index beside it. A check leaves nothing, so it opens an archive in a temporary
    folder of links, where an index that is there already is found.
    """
    path = Path(root)
    names = os.listdir(path) if path.is_dir() else [path.name] if path.is_file() else []
    if not any(name.endswith(ARCHIVES) for name in names):
        yield root, str
        return
    folder = path if path.is_dir() else path.parent
    with tempfile.TemporaryDirectory(prefix="check-") as links:

        def real_names(message: str) -> str:
            return message.replace(links, str(folder))

        for name in os.listdir(folder):
            os.symlink(folder.absolute() / name, Path(links, name))
        try:
            yield (Path(links) if path.is_dir() else Path(links, path.name)), real_names
        except ValueError as error:
            raise ValueError(real_names(str(error))) from None


def _open(root: str | os.PathLike) -> tuple[Layout, bool, bool]:
    """The layout of `root`, whether it has annotations to read, and whether it has frames."""
    path = Path(root)
    if path.is_dir() and not _shows_frames(path) and any((path / name).is_file() for name in (SPLIT, STORYGPTV_SPLIT)):
        layout = StoryGPTV(path) if (path / STORYGPTV_SPLIT).is_file() else NoFrames(path)
        return layout, (path / ANNOTATIONS).exists(), False
    return recognise(root), True, True


def _shows_frames(folder: Path) -> bool:
    """Whether anything here is meant to hold frames; broken, it is for `recognise` to complain."""
    names = os.listdir(folder)
    return any(name == SHARDS or name.endswith((*ARCHIVES, *HDF5)) for name in names) or any(
        (folder / name).is_dir() for name in (STORYGPTV_FOLDER, *FILE_FOLDERS)
    )


def _split_place(name: str) -> int:
    return SPLIT_ORDER.index(name) if name in SPLIT_ORDER else len(SPLIT_ORDER)


def _count_stories(layout: Layout, splits: Mapping[str, Sequence[str]], length: int) -> dict[str, int]:
    """Stories of each split, by the layout's own list or else by the rule; as `FlintstonesRelease.stories`."""
    own = layout.stories(length)
    if own is None:
        return {name: len(stories) for name, stories in stories_of(splits, length).items()}
    return {name: sum(set(ids).issuperset(story) for story in own[name]) for name, ids in splits.items()}


def _of_split(layout: Layout, splits: Mapping[str, Sequence[str]]) -> dict[str, object]:
    episodes = {name: Counter(map(episode_of, ids)) for name, ids in splits.items()}
    return {
        "clips": {name: len(ids) for name, ids in splits.items()},
        "episodes": {name: len(counts) for name, counts in episodes.items()},
        "clips_an_episode": {name: dict(sorted(counts.items())) for name, counts in episodes.items()},
        "stories": _count_stories(layout, splits, 5),
        "stories_of_4": _count_stories(layout, splits, 4),
    }


def _read_records(
    layout: Layout, ids: Sequence[str]
) -> tuple[dict[str, ClipRecord], dict[str, str], dict[str, object]]:
    """The split's records as the readers see them, their descriptions as written, and what is odd in the file."""
    records: dict[str, ClipRecord] = {}
    raw: dict[str, str] = {}
    seen: Counter[str] = Counter()
    wanted = set(ids)
    total = unusable = people = null_spans = 0
    for item in layout.annotations():
        record = read_record(item)
        total += 1
        unusable += record is None
        id = item.get("globalID") if isinstance(item, dict) else None
        if not isinstance(id, str):
            continue
        seen[id] += 1
        if id not in wanted:
            continue
        if record is not None:
            records[id], raw[id] = record, item["description"]  # of two, the last, as `FlintstonesRelease`
        elif isinstance(item.get("description"), str):
            raw.setdefault(id, item["description"])
        characters = item.get("characters")
        for character in characters if isinstance(characters, list) else ():
            people += 1
            null_spans += not (isinstance(character, dict) and isinstance(character.get("entitySpan"), list))
    return (
        records,
        raw,
        {
            "records": total,
            "unusable": unusable,  # without an id of the grammar or a caption
            "repeated": sum(seen.values()) - len(seen),
            "unused": len(seen.keys() - wanted),  # in no split
            "missing": [id for id in ids if id not in raw],
            "characters": people,
            "null_spans": null_spans,
        },
    )


def _of_frames(
    layout: Layout, ids: Sequence[str], everything: bool, real_names: Callable[[str], str]
) -> dict[str, object]:
    present = layout.present()
    broken, blank = [], []
    counts: Counter[int] = Counter()
    sizes: Counter[str] = Counter()
    same: dict[bytes, list[str]] = {}
    for id in tqdm(sorted(present.intersection(ids)), desc="frames", mininterval=1.0):  # as archives have them
        try:
            clip = layout.frames(id) if everything else None
            count, height, width = _shape(layout, id) if clip is None else clip.shape[:3]
            if clip is not None:
                digest = hashlib.blake2b(str(clip.shape).encode(), digest_size=16)
                digest.update(clip)
                same.setdefault(digest.digest(), []).append(id)
                if (clip == clip[0, 0, 0]).all():
                    blank.append(id)
        except Exception as error:  # broken bytes make gzip, HDF5 and the web raise whatever they like
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            broken.append({"id": id, "problem": real_names(said)})
            continue
        counts[count] += 1
        sizes[f"{width} x {height}"] += 1
    return {
        "checked": "all" if everything else "quick",
        "missing": [id for id in ids if id not in present],
        "broken": broken,
        "unused": len(present.difference(ids)),
        "frames_a_clip": {str(count): number for count, number in sorted(counts.items())},
        "sizes": dict(sizes.most_common()),
        "blank": blank if everything else None,
        "duplicates": [group for group in same.values() if len(group) > 1] if everything else None,
    }


def _shape(layout: Layout, id: str) -> tuple[int, int, int]:
    """Frames, height and width of a clip, from its header and first frame."""
    count = 0

    def first(frames: int) -> int:
        nonlocal count
        count = frames
        return 0

    picture = layout.frame(id, first)
    return count, picture.shape[0], picture.shape[1]


def _of_captions(
    records: Mapping[str, ClipRecord],
    raw: Mapping[str, str],
    count_tokens: Callable[[list[str]], list[int]] | None,
) -> dict[str, object]:
    captions = [record.caption for record in records.values()]
    words = [len(caption.split()) for caption in captions]
    bins = Counter(count // BIN * BIN for count in words)
    sentences = Counter(min(len(SENTENCE_GAP.split(caption)), 4) for caption in captions)
    texts = Counter(captions)
    dirt = [[name for name, sign in DIRTY.items() if sign.search(raw[id])] for id in records]
    by_kind = Counter(name for names in dirt for name in names)
    tokens = None
    if count_tokens is not None:
        lengths = count_tokens(captions)
        over = [id for id, length in zip(records, lengths, strict=True) if length > CLIP_TOKENS]
        tokens = {**_summary(lengths), "limit": CLIP_TOKENS, "over": over}
    return {
        "count": len(captions),
        "empty": [id for id in raw if id not in records],
        "dirty": {"clips": sum(map(bool, dirt)), **{name: by_kind[name] for name in DIRTY}},
        "words": {**_summary(words), "histogram": {str(start): bins[start] for start in sorted(bins)}},
        "sentences": {_up_to(count, 4): sentences[count] for count in (1, 2, 3, 4)},
        "with_pronoun": _share(sum(PRONOUN.search(caption) is not None for caption in captions), len(captions)),
        "duplicates": {"clips": len(captions) - len(texts), "captions": sum(n > 1 for n in texts.values())},
        "tokens": tokens,
    }


def _of_characters(records: Mapping[str, ClipRecord]) -> dict[str, object]:
    """Who of the show's regulars is in how many clips, by the rule of `FlintstonesRelease.labels`."""
    labels = Counter(label for record in records.values() for label in set(record.characters))
    totals = [sum(labels[name.lower()] for name in cast) for cast in CASTS]
    cast = CASTS[totals.index(max(totals))] if max(totals) else ()
    regulars = {name.lower() for name in cast}
    together = Counter(min(len(regulars.intersection(record.characters)), 3) for record in records.values())
    return {
        "clips": {name: labels[name.lower()] for name in cast},
        "share": {name: _share(labels[name.lower()], len(records)) for name in cast},
        "regulars_a_clip": {_up_to(count, 3): together[count] for count in (0, 1, 2, 3)},
        "other_labels": len(labels.keys() - regulars),
    }


def _of_settings(records: Mapping[str, ClipRecord]) -> dict[str, object]:
    counts = Counter(record.setting for record in records.values())
    without = counts.pop("", 0)
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:TOP_SETTINGS]
    return {"count": len(counts), "clips_without": without, "top": dict(top)}


def _summary(values: Sequence[int]) -> dict[str, float | None]:
    if not values:
        return dict.fromkeys(("mean", "median", "p95", "max"))
    return {
        "mean": round(float(np.mean(values)), 2),
        "median": float(np.median(values)),
        "p95": round(float(np.percentile(values, 95)), 2),
        "max": max(values),
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _up_to(count: int, last: int) -> str:
    return f"{count}+" if count == last else str(count)


def _printable(text: str) -> str:
    """Without half surrogates, which paths and the names of splits may hold, but no terminal or picture takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def table(report: Mapping[str, object]) -> Group:
    """The report for a terminal: red is damage, yellow a finding, green nothing to find."""
    parts = [_title(report["root"]), Text(report["layout"]), _split_table(report)]
    parts += [_title("Condition"), _condition_table(report)]
    captions, characters, settings = report["captions"], report["characters"], report["settings"]
    if captions is not None:
        sentences = (f"{n}: {_share(count, captions['count']):.0%}" for n, count in captions["sentences"].items())
        said = f"Sentences {', '.join(sentences)}. With a pronoun {captions['with_pronoun']:.0%}."
        parts += [_title("Captions"), _caption_table(captions), Text(said)]
        parts += [_title("Characters"), _character_table(characters)]
        together = ", ".join(f"{n}: {count:,}" for n, count in characters["regulars_a_clip"].items())
        said = f"Regulars a clip {together}. Other labels: {characters['other_labels']:,}."
        parts.append(Text(said if characters["clips"] else "No regular of a known show is named."))
        parts += [_title(f"Settings: {settings['count']:,}"), _setting_table(settings, captions["count"])]
    return Group(*parts, Text(), _verdict(report))


def _title(text: str) -> Text:
    return Text(f"\n{_printable(text)}", style="bold cyan")


def _split_table(report: Mapping[str, object]) -> Table:
    made = Table("")
    for name in (*report["clips"], "all"):
        made.add_column(Text(_printable(name)), justify="right")
    for title, key in (
        ("clips", "clips"),
        ("episodes", "episodes"),
        ("stories of 5 frames", "stories"),
        ("stories of 4 frames", "stories_of_4"),
        ("usable clips", "usable_clips"),
        ("usable stories of 5", "usable_stories"),
        ("usable stories of 4", "usable_stories_of_4"),
    ):
        counts = report[key]
        if counts is not None:
            style = "bold" if key == "stories" else ""
            made.add_row(title, *(f"{count:,}" for count in (*counts.values(), sum(counts.values()))), style=style)
    return made


def _condition_table(report: Mapping[str, object]) -> Table:
    made = _figures("", "clips", "")
    made.columns[2].justify = "left"

    def row(title: str, found: int | Sequence[str] | None, style: str, note: str = "") -> None:
        if found is None:
            made.add_row(title, "-", Text(note), style="dim")
            return
        number = found if isinstance(found, int) else len(found)
        if number and not isinstance(found, int):
            note = ", ".join(found[:EXAMPLES]) + (", ..." if number > EXAMPLES else "")
        made.add_row(title, Text(f"{number:,}", style=style if number else "green"), Text(note))

    frames, annotations, captions = report["frames"], report["annotations"], report["captions"]
    if frames is None:
        row("frames", None, "dim", "there are none here")
    else:
        row(DAMAGE["missing_frames"], frames["missing"], "bold red")
        problems = [_printable(clip["problem"]) for clip in frames["broken"]]
        row(DAMAGE["broken_frames"], len(problems), "bold red", problems[0] if problems else "")
        again = "" if frames["checked"] == "all" else "read all frames for this: --frames all"
        row("frames blank", frames["blank"], "yellow", again)
        same = frames["duplicates"]
        later = None if same is None else [id for group in same for id in group[1:]]
        row("frames as an earlier clip", later, "yellow", again)
        row("frames in no split", frames["unused"], "yellow")
        for title, counts in (("frames a clip", frames["frames_a_clip"]), ("width x height", frames["sizes"])):
            said = ", ".join(f"{value} ({count:,} clips)" for value, count in counts.items())
            made.add_row(title, "", Text(said, style="yellow" if len(counts) > 1 else ""))
    if annotations is None:
        row("annotations", None, "dim", "there are none here")
        return made
    row(DAMAGE["missing_annotations"], annotations["missing"], "bold red")
    row(DAMAGE["empty_captions"], captions["empty"], "bold red")
    kinds = [f"{name.replace('_', ' ')} {captions['dirty'][name]:,}" for name in DIRTY if captions["dirty"][name]]
    row("captions dirty", captions["dirty"]["clips"], "yellow", ", ".join(kinds))
    tokens = captions["tokens"]
    ask = "" if tokens else "give a CLIP tokenizer to count them: --tokenizer DIR"
    row(f"captions over {CLIP_TOKENS} CLIP tokens", tokens and tokens["over"], "yellow", ask)
    row("captions as an earlier clip", captions["duplicates"]["clips"], "yellow")
    row("characters without a span", annotations["null_spans"], "yellow", f"of {annotations['characters']:,}")
    row("records unusable", annotations["unusable"], "yellow")
    row("records of an earlier id", annotations["repeated"], "yellow")
    row("records in no split", annotations["unused"], "yellow")
    return made


def _caption_table(captions: Mapping[str, object]) -> Table:
    made = _figures("", "mean", "median", "95%", "max")
    for title, figures in (("words", captions["words"]), ("CLIP tokens", captions["tokens"])):
        if figures is not None:
            values = [figures[name] for name in ("mean", "median", "p95", "max")]
            made.add_row(title, *("-" if value is None else f"{value:g}" for value in values))
    return made


def _character_table(characters: Mapping[str, object]) -> Table:
    made = _figures("", "clips", "share")
    for name, count in characters["clips"].items():
        made.add_row(name, f"{count:,}", f"{characters['share'][name]:.1%}")
    return made


def _setting_table(settings: Mapping[str, object], clips: int) -> Table:
    made = _figures("", "clips", "share")
    for name, count in settings["top"].items():
        made.add_row(Text(_short(name)), f"{count:,}", f"{_share(count, clips):.1%}")
    if settings["clips_without"]:
        made.add_row(Text("none said", style="yellow"), f"{settings['clips_without']:,}")
    return made


def _figures(*headers: str) -> Table:
    made = Table(*headers)
    for column in made.columns[1:]:
        column.justify = "right"
    return made


def _short(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:31]}…"


def _verdict(report: Mapping[str, object]) -> Text:
    found = [f"{count:,} {DAMAGE[name]}" for name, count in report["damage"].items() if count]
    if found:
        return Text(f"Damaged: {', '.join(found)}.", style="bold red")
    if report["frames"] is None:
        return Text("No damage in what is here.", style="bold green")
    return Text("No damage.", style="bold green")


def plot(report: Mapping[str, object], path: str | os.PathLike) -> None:
    """Draw the distributions as one PNG: caption lengths, characters, settings, clips an episode."""
    from matplotlib.figure import Figure  # draws with Agg, and has no global state as pyplot has

    figure = Figure(figsize=(12, 9), layout="constrained")
    (words, people), (places, episodes) = figure.subplots(2, 2)
    figure.suptitle(f"{Path(str(report['root'])).name}: {report['layout']}", parse_math=False)
    captions, characters, settings = report["captions"], report["characters"], report["settings"]

    words.set(title="Caption lengths", xlabel="words", ylabel="clips")
    histogram = captions["words"]["histogram"] if captions else {}
    _bars(words.bar, list(map(int, histogram)), histogram.values(), BIN, align="edge")

    people.set(title="Characters", ylabel="share of clips")
    share = characters["share"] if characters else {}
    _bars(people.bar, range(len(share)), share.values(), 0.8)
    people.set_xticks(range(len(share)), list(share))

    places.set(title=f"Settings, the most frequent {TOP_SETTINGS}", xlabel="clips")
    top = settings["top"] if settings else {}
    _bars(places.barh, range(len(top)), top.values(), 0.8)
    places.set_yticks(range(len(top)), list(map(_short, top)), fontsize=8, parse_math=False)  # a "$" is a "$"
    places.invert_yaxis()

    episodes.set(title="Clips an episode", xlabel="clips", ylabel="episodes")
    counts = {name: list(by_episode.values()) for name, by_episode in report["clips_an_episode"].items() if by_episode}
    if counts:
        labels = [_printable(name).lstrip("_") for name in counts]  # matplotlib keeps "_..." out of a legend
        low, high = min(map(min, counts.values())), max(map(max, counts.values()))
        step = (high - low) // 20 + 1
        edges = np.arange(low, high + step + 1, step) - 0.5  # whole numbers lie in the middle
        episodes.hist(list(counts.values()), bins=edges, stacked=True, label=labels, edgecolor="white")
        for text in episodes.legend().get_texts():
            text.set_parse_math(False)
    for axes, drawn in ((words, histogram), (people, share), (places, top), (episodes, counts)):
        if not drawn:
            axes.text(0.5, 0.5, "nothing to count here", ha="center", va="center", transform=axes.transAxes)
    figure.savefig(path, format="png", dpi=100)


def _bars(draw: Callable, at: Sequence[int], values: Iterable[float], size: float, **arguments: str) -> None:
    draw(at, list(values), size, edgecolor="white", **arguments)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status, 0 or 1. Mistakes in `argv` leave by `SystemExit(2)`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT", help="a release in any layout, or a folder with its split file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the distributions here")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="a CLIP tokenizer's folder, to count tokens with"
    )
    parser.add_argument(
        "--frames", choices=FRAME_CHECKS, default="quick", help="read the first frame of every clip, or all of them"
    )
    args = parser.parse_args(argv)
    for option, path in (("--json", args.json), ("--plot", args.plot)):  # before a long read, not after it
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{option} {path} is not a file in a folder that is there")
    if args.plot is not None and args.plot.suffix.lower() != ".png":
        parser.error(f"--plot {args.plot} is drawn as PNG; call it .png")
    if args.tokenizer is not None and not any((args.tokenizer / name).is_file() for name in TOKENIZER_FILES):
        parser.error(f"--tokenizer {args.tokenizer} is no folder with {' or '.join(TOKENIZER_FILES)}")
    try:
        report = check(args.root, args.tokenizer, args.frames)
        if args.json is not None:
            args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if args.plot is not None:
            plot(report, args.plot)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    Console().print(table(report))
    return int(any(report["damage"].values()))


if __name__ == "__main__":
    sys.exit(main())
