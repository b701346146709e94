"""Checks against real FlintstonesSV facts, where their folder is given: `python .ci/real_data.py DATA`.

DATA holds `flintstones/train-val-test_split.json`, `flintstones/val_captions.json`, the CLIP tokenizer of Stable
Diffusion 1.5 in `sd15/tokenizer` and GPT-2's vocabulary in `gpt2/`. Nothing of it belongs to this project.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer, GPT2Tokenizer

from sagan_pipeline.captioner import SPECIAL_TOKENS, serialize_prefix, training_example
from train.data.annotations import SPLIT, followings_of, read_split, stories_of, tidy


def expect(what: str, got: object, wanted: object) -> None:
    print(f"{what}: {got}")
    if got != wanted:
        sys.exit(f"{what} should be {wanted}")


def check_split(path: Path) -> dict[str, list[str]]:
    start = time.perf_counter()
    splits = read_split(path)
    counts = {length: {name: len(ids) for name, ids in stories_of(splits, length).items()} for length in (5, 4)}
    seconds = time.perf_counter() - start
    expect("stories of 5", counts[5], {"test": 2309, "train": 20132, "val": 2071})
    expect("stories of 4", counts[4], {"test": 2326, "train": 20263, "val": 2087})
    expect("clips", {name: len(ids) for name, ids in splits.items()}, {"test": 2377, "train": 20656, "val": 2135})
    expect("read and built within a second", seconds < 1.0, True)
    expect("starts with four followers", len(followings_of(splits, 4)), 24512)
    return splits


def check_captions(captions: dict[str, str], clip: CLIPTokenizer) -> None:
    """The statistics of the validation captions, as published beside the format."""
    words = [len(text.split()) for text in captions.values()]
    tokens = [len(ids) for ids in clip(list(captions.values())).input_ids]
    expect("captions", len(captions), 2071)
    expect(
        "words: median, p95, min, max",
        [*map(float, np.percentile(words, [50, 95])), min(words), max(words)],
        [15, 30, 4, 75],
    )
    expect("words: mean within 0.1 of 16.5", abs(float(np.mean(words)) - 16.5) < 0.1, True)
    expect("CLIP tokens: mean within 0.1 of 20.8", abs(float(np.mean(tokens)) - 20.8) < 0.1, True)
    expect("CLIP tokens: p95, max", [float(np.percentile(tokens, 95)), max(tokens)], [36, 90])
    expect("over 77 CLIP tokens", sum(count > 77 for count in tokens), 2)
    expect("with a line break", sum("\n" in text for text in captions.values()), 15)
    expect("to be stripped", sum(text != text.strip() for text in captions.values()), 376)
    expect("with a bar", sum("|" in text for text in captions.values()), 0)
    expect("duplicates", len(captions) - len({text.strip().lower() for text in captions.values()}), 8)
    tidied = [tidy(text) for text in captions.values()]
    expect("tidy", all(text and text == tidy(text) and "\n" not in text for text in tidied), True)
    expect("same words", [re.findall(r"\S+", t) for t in captions.values()] == [t.split() for t in tidied], True)


def check_serialiser(splits: dict[str, list[str]], captions: dict[str, str], gpt2: GPT2Tokenizer) -> None:
    """Every complete validation story through the serialiser and GPT-2's own tokenizer."""
    gpt2.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    stories = [s for s in stories_of(splits, 5)["val"] if all(id in captions for id in s)]
    print(f"complete stories: {len(stories)}")
    for story in stories:
        texts = [tidy(captions[id]) for id in story]
        for k in range(4):
            ids, labels = training_example(texts[:k], texts[k], gpt2, 1024)
            learnt = [label for label in labels if label != -100]
            if gpt2.decode(learnt[:-1]).strip() != texts[k] or learnt[-1] != gpt2.eos_token_id:
                sys.exit(f"the target of {story[0]} at k = {k} does not come back: {gpt2.decode(learnt)!r}")
            bodies = re.split(r"\[S_\w+\]", gpt2.decode(ids[: len(ids) - len(learnt)]))[1:-1]
            if (
                len(ids) != len(labels)
                or bodies != texts[:k]
                or ids[: -len(learnt)] != serialize_prefix(texts[:k], gpt2, 900)
            ):
                sys.exit(f"the prefix of {story[0]} at k = {k} does not come back")
    print("every target and every prefix comes back through GPT-2's tokenizer")


def main() -> None:
    data = Path(sys.argv[1])
    splits = check_split(data / "flintstones" / SPLIT)
    captions = json.loads((data / "flintstones" / "val_captions.json").read_text(encoding="utf-8"))
    check_captions(captions, CLIPTokenizer.from_pretrained(data / "sd15" / "tokenizer"))
    check_serialiser(splits, captions, GPT2Tokenizer.from_pretrained(data / "gpt2"))


if __name__ == "__main__":
    main()
