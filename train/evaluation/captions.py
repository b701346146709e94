"""Figures on the captioner's captions, beside the real next captions of the same stories."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from sacrebleu.metrics import BLEU
from transformers import GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline import SAGANetsPipeline
from sagan_pipeline.captioner import draft_caption, next_captions
from train.captioner import MAX_PREFIX, Example, StoryCaptions, captioner_loss, count_target_tokens
from train.data.flintstones import FlintstonesRelease
from train.evaluation.painting import key_of, shared_chunks
from train.evaluation.scoring import BOOTSTRAPS, DISTANCE_BOOTSTRAPS, weights
from train.evaluation.stories import place_words
from train.metrics.captions import distinct, is_complete, named


AT_ONCE = 32
# how a prefix is put to the captioner (the paper's future work ii)
PROMPTING: dict[str, Callable[[list[str], Sequence[str]], list[str]]] = {
    "all": lambda captions, cast: captions,
    "last": lambda captions, cast: captions[-1:],
    "first_and_last": lambda captions, cast: captions[:1] + captions[1:][-1:],
    # the latest caption is opened by whom the whole prefix names
    "named": lambda captions, cast: [*captions[:-1], *(_with_names(captions, cast) if captions else [])],
}


def _with_names(captions: list[str], cast: Sequence[str]) -> list[str]:
    there = [name for name in cast if any(named(caption, [name]) for caption in captions)]
    missing = [name for name in there if not named(captions[-1], [name])]
    return (
        [f"{captions[-1]} {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} there."]
        if missing
        else (captions[-1:])
    )


@torch.no_grad()
def token_losses(
    captioner: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, stories: StoryCaptions, same: bool = False
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By k: the summed loss of caption k+1 of every story after captions 1..k, and its number of tokens; with `same`
    that of a story's fourth caption after the last k before it."""
    limit, found = captioner.config.n_positions, {}
    for k in range(MAX_PREFIX + 1):
        examples = [stories.example(story, MAX_PREFIX if same else k) for story in range(len(stories.stories))]
        examples = [replace(e, captions=e.captions[len(e.captions) - k :]) for e in examples]
        tokens = np.array([count_target_tokens(tokenizer, [e], limit) for e in examples])
        losses = [float(captioner_loss(captioner, tokenizer, [e], limit)) for e in examples]
        found[str(k)] = (np.array(losses) * tokens, tokens)
    return found


def _perplexities(losses: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """By k, per token of the captioner's own vocabulary."""
    return {k: float(np.exp(loss.sum() / tokens.sum())) for k, (loss, tokens) in losses.items()}


def perplexity_figures(
    captioner: GPT2LMHeadModel, tokenizer: GPT2Tokenizer, stories: StoryCaptions, seed: int = 0
) -> dict[str, dict]:
    """Perplexity of the real captions by how many are known before them, with 95% intervals; nothing is sampled."""
    own, same = (token_losses(captioner, tokenizer, stories, same=way) for way in (False, True))
    rows = weights(len(stories.stories), BOOTSTRAPS, seed)
    spread = {
        k: np.exp(np.percentile((rows @ loss) / (rows @ tokens), [2.5, 97.5])).tolist()
        for k, (loss, tokens) in own.items()
    }
    # the same captions at every k, so that their difficulty drops out of the difference
    falls = {
        k: (1 - np.exp(np.percentile((rows @ (after - before)) / (rows @ tokens), [97.5, 2.5]))).tolist()
        for k, (after, tokens), (before, _) in ((k, same[k], same[str(int(k) - 1)]) for k in list(same)[1:])
    }
    return {
        "perplexity_by_k": _perplexities(own),
        "perplexity_intervals": spread,
        "perplexity_of_fourth_by_k": _perplexities(same),
        "perplexity_of_fourth_falls": falls,
    }


def facts_of(
    example: Example, caption: str, names: Sequence[str], places: Mapping[str, Sequence[str]]
) -> dict[str, bool | None]:
    """What one caption does with its prefix; `None` where the prefix gives it nothing to keep."""
    before = set().union(*(named(text, names) for text in example.captions))
    there = set().union(*(_places(text, places) for text in example.captions))
    who = bool(before & named(caption, names)) if before else None
    where = bool(there & _places(caption, places)) if there else None
    return {
        "complete": is_complete(caption),
        "keeps_a_character": who,
        "keeps_a_place": where,
        "faithful": None if who is None and where is None else who is not False and where is not False,
        "repeats_a_prefix_caption": caption in example.captions if example.captions else None,
    }


def _places(text: str, places: Mapping[str, Sequence[str]]) -> set[str]:
    return {name for name, words in places.items() if named(text, words)}


def caption_figures(
    examples: Sequence[Example],
    captions: Sequence[str],
    names: Sequence[str],
    places: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> dict[str, object]:
    """Shares of captions, of those that have the case at all, with 95% intervals and the number of cases; and
    distinct-2."""
    facts = [facts_of(e, c, names, places) for e, c in zip(examples, captions, strict=True)]
    drawn = weights(len(facts), BOOTSTRAPS, seed)
    found: dict[str, object] = {}
    cases, intervals = {}, {}
    for name in facts[0]:
        counts = np.array([fact[name] is not None for fact in facts])
        true = np.array([fact[name] is True for fact in facts])
        cases[name] = int(counts.sum())
        found[name] = float(true.sum() / counts.sum()) if counts.any() else float("nan")
        below = drawn @ counts
        shares = np.divide(drawn @ true, below, out=np.full(len(drawn), np.nan), where=below > 0)
        if counts.any():
            intervals[name] = np.nanpercentile(shares, [2.5, 97.5]).tolist()
    found["distinct_2"] = distinct(captions, n=2)
    draws = [
        distinct([c for c, n in zip(captions, row, strict=True) for _ in range(n)])
        for row in drawn[:DISTANCE_BOOTSTRAPS]
    ]
    # repeated captions alone make it smaller: the draws are moved to the figure
    intervals["distinct_2"] = (found["distinct_2"] + np.percentile(draws, [2.5, 97.5]) - np.mean(draws)).tolist()
    return {**found, "intervals": intervals, "cases": cases}


def evaluate_captions(
    pipe: SAGANetsPipeline,
    release: FlintstonesRelease,
    split: str,
    count: int,
    seed: int,
    work: Path,
    accelerator: Accelerator,
    model: str = "",
    prompting: str = "all",
    temperature: float | None = None,
) -> dict[str, object]:
    """Sample captions after prefixes of 0 to 3 captions of a split's stories, in turn, beside the real next ones.

    Args:
        prompting (`str`): one of `PROMPTING`.
        temperature (`float`, *optional*): of the captioner; default: the model's own.
    """
    stories = StoryCaptions(release, split)
    warmth = pipe.config.default_temperature if temperature is None else temperature
    drawn = torch.randint(len(stories.stories), (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    examples = [stories.example(story, i % (MAX_PREFIX + 1)) for i, story in enumerate(drawn)]
    put = PROMPTING[prompting]

    def make(indices: list[int]) -> dict:
        prefixes = [put(examples[i].captions, release.cast) for i in indices]
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + i) for i in indices]
        told, ended = [], []
        for prefix, generator in zip(prefixes, generators, strict=True):
            state = generator.get_state()
            text, done = draft_caption(pipe.captioner, pipe.captioner_tokenizer, prefix, generator, warmth)
            ended.append(done)
            if not done or text in prefix[-2:]:  # otherwise the draft is what the captioner answers
                generator.set_state(state)
                (text,) = next_captions(pipe.captioner, pipe.captioner_tokenizer, [prefix], [generator], warmth)
            told.append(text)
        return {"captions": told, "ended": ended}

    facts = {"model": model, "split": split, "count": count, "seed": seed, "prompting": prompting, "warmth": warmth}
    folder = work / key_of(f"captions-{prompting}", facts)
    chunks = shared_chunks(folder, count, AT_ONCE, accelerator, make, f"captions, {prompting}")
    sampled = [caption for chunk in chunks for caption in chunk["captions"]]
    ended = [ended for chunk in chunks for ended in chunk["ended"]]
    real, places = [e.target for e in examples], place_words(release.settings)
    bleu = BLEU(lowercase=True).corpus_score(sampled, [real], n_bootstrap=BOOTSTRAPS)
    return {
        "split": split,
        "count": count,
        "seed": seed,
        "prompting": prompting,
        "temperature": warmth,
        "drafts_that_end_by_themselves": sum(ended) / len(ended),
        "bleu_4": bleu.score / 100,
        "bleu_4_interval": [(bleu._mean - bleu._ci) / 100, (bleu._mean + bleu._ci) / 100],
        "sampled": caption_figures(examples, sampled, release.cast, places, seed),
        "real": caption_figures(examples, real, release.cast, places, seed),
        "incomplete": [caption for caption in sampled if not is_complete(caption)],
        "examples": [{"prefix": e.captions, "sampled": c} for e, c in zip(examples[:8], sampled, strict=False)],
    }
