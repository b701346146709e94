"""The captioner's training (paper 4.1): the next caption from the captions so far, loss on the target only."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline.captioner import SPECIAL_TOKENS, draft_caption, training_example
from train.config import TrainingConfig
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

    def keep(self, ids: Container[str]) -> None:
        """Drop every story with a clip that is not among `ids`.

        Raises:
            ValueError: no story is left.
        """
        self.stories = [story for story in self.stories if all(id in ids for id in story)]
        if not self.stories:
            raise ValueError("`ids` leaves no whole story.")

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


def count_target_tokens(tokenizer: GPT2Tokenizer, examples: list[Example], max_length: int) -> int:
    """How many tokens of a batch bear the loss, the ends of text included."""
    rows = (training_example(e.captions, e.target, tokenizer, max_length)[1] for e in examples)
    return sum(label != -100 for labels in rows for label in labels)


def captioner_loss(
    captioner: GPT2LMHeadModel,
    tokenizer: GPT2Tokenizer,
    examples: list[Example],
    max_length: int | None = None,
    tokens: int | None = None,
) -> torch.Tensor:
    """Mean cross-entropy over the target captions' tokens (end of text included) of a batch: a scalar.

    Args:
        max_length (`int`, *optional*): of prefix and target together, in tokens; the captioner's context by default.
        tokens (`int`, *optional*): divide the sum by this instead of the batch's own number of target tokens, where
            the batch is a part of a larger one.
    """
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
    device = next(captioner.parameters()).device
    batch = {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
    batch = {name: value.to(device) for name, value in batch.items()}
    return captioner(**batch, num_items_in_batch=tokens).loss


class Captioner:
    """GPT-2 that learns to write the next caption.

    Args:
        config (`TrainingConfig`): the run's settings. `config.captioner` names a GPT-2; empty, the base's own.
        release (`FlintstonesRelease`): the show, for validation.
        accelerator (`Accelerator`): says the device and the precision, and wraps GPT-2.
    """

    name = "captioner"

    def __init__(self, config: TrainingConfig, release: FlintstonesRelease, accelerator: Accelerator):
        self.config, self.accelerator = config, accelerator
        self.model, self.tokenizer = load_captioner(config)
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.model.to(accelerator.device).train()
        self.parameters = list(self.model.parameters())
        self.state = self.model
        self.max_length = self.model.config.n_positions
        self.validation = StoryCaptions(release, "val")
        self.network = accelerator.prepare(self.model)

    def loss(self, examples: list[Example], rows: slice, parts: int) -> torch.Tensor:
        """The loss of some rows of a step's examples; the mean over `parts` such parts is that of the whole step."""
        tokens = count_target_tokens(self.tokenizer, examples, self.max_length)
        with self.accelerator.autocast():
            loss = captioner_loss(self.network, self.tokenizer, examples[rows], self.max_length, tokens)
        return loss * parts

    def after_step(self) -> None:
        pass

    @torch.no_grad()
    def validate(self, count: int) -> float:
        """Loss per token on `count` stories of the validation split, the same every time."""
        examples = self.validation.examples(count, torch.Generator().manual_seed(self.config.seed))
        tokens = count_target_tokens(self.tokenizer, examples, self.max_length)
        self.model.eval()
        losses = [
            float(captioner_loss(self.model, self.tokenizer, examples[i : i + 32], self.max_length, tokens))
            for i in range(0, len(examples), 32)
        ]
        self.model.train()
        return sum(losses)

    def sample(self) -> str:
        """Eight prefixes of validation stories, k = 0 to 3, and what is drafted next, with fixed seeds."""
        self.model.eval()
        stories, lines = self.validation, []
        for i in range(8):
            prefix = stories.example(i * 7 % len(stories.stories), i % 4).captions
            text, ended = draft_caption(self.model, self.tokenizer, prefix, torch.Generator().manual_seed(i))
            lines.append(f"{' | '.join(prefix)}\n   -> {text}{'' if ended else ' (unfinished)'}\n")
        self.model.train()
        return "".join(lines)

    def write(self, folder: Path) -> None:
        """Write a plain transformers folder, fp16."""
        self.model.eval()
        state = {name: value.half() for name, value in self.model.state_dict().items()}
        dtype, self.model.config.dtype = self.model.config.dtype, torch.float16
        self.model.save_pretrained(folder, state_dict=state)
        self.model.config.dtype = dtype
        self.tokenizer.save_pretrained(folder)
        self.model.train()


def load_captioner(config: TrainingConfig) -> tuple[GPT2LMHeadModel, GPT2Tokenizer]:
    """GPT-2 and its tokenizer, the position tokens added where it does not know them yet (paper 4.1)."""
    given: dict[str, object] = {"dtype": torch.float32}
    if config.captioner_dropout is not None:
        given |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.captioner_dropout)
    if config.captioner:
        model = GPT2LMHeadModel.from_pretrained(config.captioner, **given)
        tokenizer = GPT2Tokenizer.from_pretrained(config.captioner)
    else:
        model = GPT2LMHeadModel.from_pretrained(config.base, subfolder="captioner", **given)
        tokenizer = GPT2Tokenizer.from_pretrained(config.base, subfolder="captioner_tokenizer")
    known = tokenizer.get_vocab()
    if any(token not in known for token in SPECIAL_TOKENS):
        tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
        with torch.random.fork_rng():  # the new rows are drawn from the global RNG
            torch.manual_seed(config.seed)
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer
