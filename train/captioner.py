"""The captioner's training (paper 4.1): the next caption from the captions so far, loss on the target only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline.captioner import training_example
from train.data.flintstones import FlintstonesRelease


MAX_PREFIX = 3  # k ~ U{0, 1, 2, 3}, paper 4.3


@dataclass(frozen=True)
class Example:
    """Captions 1..k of a story, and caption k+1 that is to be predicted, with its clip."""

    captions: list[str]
    target: str
    clip_id: str


class StoryCaptions:
    """Stories of one split, as captions.

    Args:
        release (`FlintstonesRelease`): the data.
        split (`str`): `"train"`, `"val"` or `"test"`.
    """

    def __init__(self, release: FlintstonesRelease, split: str):
        self.stories = release.stories(split, length=MAX_PREFIX + 1)
        if not self.stories:
            raise ValueError(f"`split` {split!r} of the release holds no story of {MAX_PREFIX + 1} clips.")
        self.caption_of = {id: release.clip(id).caption for story in self.stories for id in story}

    def example(self, story: int, k: int) -> Example:
        """The example of `story` with a prefix of `k` captions."""
        ids = self.stories[story]
        captions = [self.caption_of[id] for id in ids[: k + 1]]
        return Example(captions[:k], captions[k], ids[k])

    def examples(self, size: int, generator: torch.Generator) -> list[Example]:
        """`size` random stories, each with its own k ~ U{0, 1, 2, 3}."""
        chosen = torch.randint(len(self.stories), (size,), generator=generator).tolist()
        lengths = torch.randint(MAX_PREFIX + 1, (size,), generator=generator).tolist()
        return [self.example(story, k) for story, k in zip(chosen, lengths, strict=True)]


def captioner_loss(
    captioner: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, examples: list[Example], max_length: int | None = None
) -> torch.Tensor:
    """Mean cross-entropy over the target captions' tokens (end of text included) of a batch: a scalar."""
    max_length = max_length or captioner.config.n_positions
    rows = [training_example(e.captions, e.target, tokenizer, max_length) for e in examples]
    length = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), length), tokenizer.eos_token_id)
    labels = torch.full((len(rows), length), -100)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, (ids, targets) in enumerate(rows):
        input_ids[i, : len(ids)] = torch.as_tensor(ids)
        labels[i, : len(ids)] = torch.as_tensor(targets)
        mask[i, : len(ids)] = 1
    return captioner(input_ids=input_ids, attention_mask=mask, labels=labels).loss
