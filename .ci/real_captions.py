"""Trains the captioner on the published validation captions of FlintstonesSV:
`PYTHONPATH=. python .ci/real_captions.py DATA OUT`.

DATA is the folder of `flintstones/val_captions.json`, which does not belong to this project; OUT gets a release of the
captions alone, split anew by whole episodes (eight of ten train, one validates, one tests), a GPT-2 of the embedded
model's size, trained from nothing by `train.saganets` for ten minutes at most, and `report.json`. About 12 minutes on
two processors; not part of `.ci/run`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline.captioner import SPECIAL_TOKENS, draft_caption, next_captions
from train.adapter import provenance
from train.base import captioner_config, train_tokenizers
from train.captioner import MAX_PREFIX, StoryCaptions
from train.data.annotations import ANNOTATIONS, SPLIT
from train.data.flintstones import FlintstonesRelease
from train.evaluation.captions import perplexity_figures
from train.metrics.captions import distinct, is_complete, share
from train.saganets import main as train


SAMPLED = 300
TEMPERATURE = 0.8
RECIPE = ["--modules", "captioner", "--cached", "--cpu", "--mixed_precision", "bf16", "--batch_size", "32"]
RECIPE += ["--steps", "1500", "--schedule", "cosine", "--warmup", "50", "--captioner_learning_rate", "1e-3"]
RECIPE += ["--captioner_weight_decay", "0.1", "--adam_beta2", "0.98", "--validation_steps", "50", "--patience", "6"]
RECIPE += ["--watch", "captioner_loss", "--validation_stories", "200", "--max_seconds", "600"]


def write_release(captions: dict[str, str], root: Path) -> None:
    """The captions in FlintstonesSV's own shape, without pictures."""
    root.mkdir(parents=True, exist_ok=True)
    episodes = sorted({id.split("_shot_")[0] for id in captions})
    part_of = {episode: ("val", "test")[i % 10 - 8] if i % 10 > 7 else "train" for i, episode in enumerate(episodes)}
    splits: dict[str, list[str]] = {"test": [], "train": [], "val": []}
    for id in captions:
        splits[part_of[id.split("_shot_")[0]]].append(id)
    records = [
        {"globalID": id, "setting": "", "description": text, "characters": [], "objects": []}
        for id, text in captions.items()
    ]
    (root / ANNOTATIONS).write_text(json.dumps(records), encoding="utf-8")
    (root / SPLIT).write_text(json.dumps(splits), encoding="utf-8")


def write_captioner(release: FlintstonesRelease, folder: Path) -> None:
    """A GPT-2 that has learnt nothing, its tokenizer learnt from the training captions."""
    _, tokenizer = train_tokenizers([release.clip(id).caption for id in release.splits["train"]], folder.parent)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    torch.manual_seed(0)
    GPT2LMHeadModel(captioner_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(data: Path, out: Path) -> None:
    captions = json.loads((data / "flintstones" / "val_captions.json").read_text(encoding="utf-8"))
    write_release(captions, out / "release")
    release = FlintstonesRelease(out / "release", pictures=False)
    if not (out / "new").exists():
        write_captioner(release, out / "new")
    train(["--data", str(out / "release"), "--base", "", "--captioner", str(out / "new"), "--out", str(out), *RECIPE])

    captioner = GPT2LMHeadModel.from_pretrained(out / "captioner", dtype=torch.float32).eval()
    tokenizer = GPT2Tokenizer.from_pretrained(out / "captioner")
    stories = StoryCaptions(release, "test")
    examples = [stories.example(i * 7 % len(stories.stories), i % (MAX_PREFIX + 1)) for i in range(SAMPLED)]
    written, drafts = [], []
    for i, example in enumerate(examples):
        first, again = (torch.Generator().manual_seed(i) for _ in range(2))
        drafts.append(draft_caption(captioner, tokenizer, example.captions, first, TEMPERATURE)[1])
        written += next_captions(captioner, tokenizer, [example.captions], [again], TEMPERATURE)
    real = [example.target for example in examples]
    validations = [json.loads(line) for line in (out / "run" / "validation.jsonl").read_text().splitlines()]
    repeats = [caption in example.captions for example, caption in zip(examples, written, strict=True)]
    report = {
        **provenance(),
        "recipe": RECIPE,
        "clips": {name: len(ids) for name, ids in release.splits.items()},
        "stories": {name: len(release.stories(name, MAX_PREFIX + 1)) for name in release.splits},
        "vocabulary": len(tokenizer),
        "best_validation": min(validations, key=lambda line: line["captioner_loss"]),
        "last_validation": validations[-1],
        **perplexity_figures(captioner, tokenizer, stories),
        "sampled": SAMPLED,
        "drafts_that_end_by_themselves": share(drafts)[0],
        "complete": share([is_complete(caption) for caption in written])[0],
        "repeats_a_prefix_caption": share(repeats)[0],
        "distinct_2": {"sampled": distinct(written), "real": distinct(real)},
        "examples": [{"prefix": e.captions, "sampled": c} for e, c in zip(examples[:12], written, strict=False)],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
