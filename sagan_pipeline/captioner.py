"""The captioner (paper 4.1): writes caption k+1 from captions 1..k with GPT-2.

A prefix is serialised as `[S_1] C_1 ... [S_k] C_k [S_NEXT]`; the caption follows and ends with the end-of-text token.
"""

from __future__ import annotations

import logging
import re

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer


logger = logging.getLogger(__name__)

MAX_POSITIONS = 16  # captions of a prefix that have a position token of their own
NEXT = "[S_NEXT]"
SPECIAL_TOKENS = (*(f"[S_{i}]" for i in range(1, MAX_POSITIONS + 1)), NEXT)
MAX_NEW_TOKENS = 64
ATTEMPTS = 8  # samples before a caption that does not end is cut at its last sentence
SENTENCE_END = re.compile(r"[.!?][\"'”’)]*$")


def encode(tokenizer: GPT2Tokenizer, text: str) -> list[int]:
    """Token ids of plain text: what looks like a special token in it stays text."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def serialize_prefix(captions: list[str], tokenizer: GPT2Tokenizer, max_tokens: int) -> list[int]:
    """P_k = [S_1] C_1 ... [S_k] C_k [S_NEXT] as token ids.

    Args:
        captions (`list[str]`): C_1..C_k, k may be 0.
        tokenizer (`GPT2Tokenizer`): knows `SPECIAL_TOKENS`.
        max_tokens (`int`): room for the ids. The oldest captions are dropped until the rest fits, and the rest is
            numbered anew.
    """
    positions = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    bodies = [encode(tokenizer, caption) for caption in captions][-MAX_POSITIONS:]
    while bodies and sum(len(body) + 1 for body in bodies) + 1 > max_tokens:
        bodies.pop(0)
    if len(bodies) < len(captions):
        logger.warning(
            "The prefix is too long for the captioner: its oldest %d of %d captions are left out.",
            len(captions) - len(bodies),
            len(captions),
        )
    ids: list[int] = []
    for position, body in zip(positions, bodies, strict=False):
        ids += [position, *body]
    return [*ids, positions[-1]]


def training_example(
    captions: list[str], target: str, tokenizer: GPT2Tokenizer, max_length: int
) -> tuple[list[int], list[int]]:
    """One example of the captioner's training.

    Returns:
        The ids of prefix, target and end of text, at most `max_length`, and as many labels: -100 on the prefix, the
        ids themselves on target and end of text, so that the loss is on the target alone.
    """
    answer = [*encode(tokenizer, target), tokenizer.eos_token_id][: max_length - 1]
    prefix = serialize_prefix(captions, tokenizer, max_length - len(answer))
    return prefix + answer, [-100] * len(prefix) + answer


def is_finished(text: str) -> bool:
    """Whether a caption has words and ends as a sentence does."""
    return any(c.isalpha() for c in text) and SENTENCE_END.search(text) is not None


def next_captions(
    captioner: GPT2LMHeadModel,
    tokenizer: GPT2Tokenizer,
    prefixes: list[list[str]],
    generators: list[torch.Generator],
    temperature: float = 0.8,
    top_p: float = 0.95,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """Sample the next caption of each prefix. No row depends on another, and the global RNG is not used.

    Args:
        prefixes (`list[list[str]]`): captions so far, oldest first; a prefix may be empty.
        generators (`list[torch.Generator]`): one a prefix, on the CPU.
        temperature (`float`): 0 takes the likeliest token always; larger is bolder.
        top_p (`float`): tokens outside the likeliest share are never sampled, in (0, 1].

    Returns:
        `list[str]`: whole sentences, one caption a prefix.

    Raises:
        ValueError: an argument is outside what is said above.
        RuntimeError: the captioner writes no words at all.
    """
    if len(generators) != len(prefixes):
        raise ValueError(f"`generators` holds {len(generators)}, but there are {len(prefixes)} prefixes.")
    if not 0 <= temperature <= 10:
        raise ValueError(f"`temperature` is {temperature}, but must be between 0 and 10.")
    if not 0 < top_p <= 1:
        raise ValueError(f"`top_p` is {top_p}, but must be above 0 and at most 1.")
    rows = zip(prefixes, generators, strict=True)
    return [_next(captioner, tokenizer, prefix, g, temperature, top_p, max_new_tokens) for prefix, g in rows]


@torch.no_grad()
def draft_caption(
    captioner: GPT2LMHeadModel,
    tokenizer: GPT2Tokenizer,
    prefix: list[str],
    generator: torch.Generator,
    temperature: float = 0.8,
    top_p: float = 0.95,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[str, bool]:
    """One sample as the captioner writes it, and whether it ended by itself and as a sentence: what `next_captions`
    chooses from. Arguments as there."""
    ids, room = _prompt(captioner, tokenizer, prefix, max_new_tokens)
    return _sample(captioner, tokenizer, ids, generator, temperature, top_p, room)


@torch.no_grad()
def _next(captioner, tokenizer, prefix, generator, temperature, top_p, max_new_tokens) -> str:
    before = {caption.strip() for caption in prefix[-2:]}  # a story does not stand still
    ids, room = _prompt(captioner, tokenizer, prefix, max_new_tokens)
    unfinished = []
    for _ in range(ATTEMPTS if temperature else 1):  # the likeliest tokens are the same each time
        text, complete = _sample(captioner, tokenizer, ids, generator, temperature, top_p, room)
        if complete and text not in before:
            return text
        unfinished.append(text)
    for text in unfinished:  # what was written, up to its last whole sentence
        whole = text[: max(text.rfind(mark) for mark in ".!?") + 1].strip()
        if is_finished(whole):
            return whole
    for text in unfinished:
        if any(c.isalpha() for c in text):
            return text.rstrip(" ,;:-") + "."
    raise RuntimeError("the captioner writes no words; it may not be trained, or not for this tokenizer")


def _prompt(captioner, tokenizer, prefix, max_new_tokens) -> tuple[list[int], int]:
    """The serialised prefix, and how many tokens may follow: a caption takes half of a small context at most."""
    positions = captioner.config.n_positions
    room = min(max_new_tokens, positions // 2)
    return serialize_prefix(prefix, tokenizer, positions - room), room


def _sample(captioner, tokenizer, ids, generator, temperature, top_p, max_new_tokens) -> tuple[str, bool]:
    """One sampled continuation, and whether it ended by itself and as a sentence."""
    forbidden = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    step, cache, written, ended = torch.tensor([ids], device=captioner.device), None, [], False
    for _ in range(max_new_tokens):
        out = captioner(input_ids=step, past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[0, -1].float().cpu()  # [V]
        logits[forbidden] = -torch.inf
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = _draw(logits / temperature, top_p, generator)
        if token == tokenizer.eos_token_id:
            ended = True
            break
        written.append(token)
        step = torch.tensor([[token]], device=captioner.device)
    text = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    text = " ".join("".join(c if c.isprintable() and c != "\ufffd" else " " for c in text).split())
    return text, ended and is_finished(text)


def _draw(logits: torch.Tensor, top_p: float, generator: torch.Generator) -> int:
    """Nucleus sampling (Holtzman et al. 2020) from logits (V,)."""
    probabilities, order = logits.softmax(dim=0).sort(descending=True, stable=True)
    outside = probabilities.cumsum(dim=0) - probabilities >= top_p
    probabilities = probabilities.masked_fill(outside, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
