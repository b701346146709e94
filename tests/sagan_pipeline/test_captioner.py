"""Serialisation, the loss mask, and captions that always end."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sagan_pipeline.captioner import SPECIAL_TOKENS, is_finished, next_captions, serialize_prefix, training_example


PREFIX = ["Gus is in the kitchen.", "He is talking to Mabel."]


@pytest.fixture
def tokenizer(language):
    return language[0]


@pytest.fixture
def captioner(language):
    return language[1]


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def test_a_prefix_is_serialised_as_the_paper_does(tokenizer):
    assert tokenizer.decode(serialize_prefix(PREFIX, tokenizer, 100)) == (
        "[S_1]Gus is in the kitchen.[S_2]He is talking to Mabel.[S_NEXT]"
    )
    assert tokenizer.decode(serialize_prefix([], tokenizer, 100)) == "[S_NEXT]"


def test_special_tokens_in_a_caption_stay_text(tokenizer):
    ids = serialize_prefix(["Gus [S_NEXT] is<|endoftext|> here."], tokenizer, 100)
    assert ids.count(tokenizer.convert_tokens_to_ids("[S_NEXT]")) == 1
    assert tokenizer.eos_token_id not in ids


def test_the_loss_is_on_the_target_alone(tokenizer):
    ids, labels = training_example(PREFIX, "Mabel laughs.", tokenizer, 100)
    prefix = serialize_prefix(PREFIX, tokenizer, 100)
    assert ids[: len(prefix)] == prefix and labels[: len(prefix)] == [-100] * len(prefix)
    assert labels[len(prefix) :] == ids[len(prefix) :]
    assert tokenizer.decode(ids[len(prefix) : -1]) == "Mabel laughs." and ids[-1] == tokenizer.eos_token_id


def test_a_long_prefix_loses_its_oldest_captions_and_is_numbered_anew(tokenizer, caplog):
    captions = [f"Gus is in the kitchen {'again ' * n}." for n in range(6)]
    whole = serialize_prefix(captions[-2:], tokenizer, 1000)
    assert serialize_prefix(captions, tokenizer, len(whole)) == whole
    assert "4 of 6" in caplog.text
    assert serialize_prefix(captions, tokenizer, 1) == [tokenizer.convert_tokens_to_ids("[S_NEXT]")]
    many = serialize_prefix(["Gus."] * 40, tokenizer, 1000)
    assert [many.count(i) for i in tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))] == [1] * len(SPECIAL_TOKENS)


def test_a_training_example_never_exceeds_its_length(tokenizer):
    ids, labels = training_example(PREFIX * 20, "Mabel laughs. " * 40, tokenizer, 50)
    assert len(ids) == len(labels) <= 50 and ids[0] == tokenizer.convert_tokens_to_ids("[S_NEXT]")


def test_captions_end_repeat_bit_by_bit_and_do_not_depend_on_their_neighbours(captioner, tokenizer):
    prefixes = [[], PREFIX[:1], PREFIX]
    state = torch.get_rng_state()
    first = next_captions(captioner, tokenizer, prefixes, generators(3))
    assert first == next_captions(captioner, tokenizer, prefixes, generators(3))
    assert first[1:] == next_captions(captioner, tokenizer, prefixes[1:], generators(3)[1:])
    assert all(map(is_finished, first)) and torch.equal(state, torch.get_rng_state())


def test_a_story_does_not_stand_still(captioner, tokenizer):
    opening = "Gus is in the kitchen. He is talking."
    learnt = next_captions(captioner, tokenizer, [[opening]], generators(1), temperature=0)[0]
    assert learnt == "Gus is in the yard. He is talking."
    again = next_captions(captioner, tokenizer, [[opening, learnt]], generators(1))[0]
    assert again != learnt


def test_an_untrained_captioner_writes_no_unfinished_caption(tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=96, n_embd=16, n_layer=1, n_head=1)
    for text in next_captions(GPT2LMHeadModel(config).eval(), tokenizer, [[]] * 8, generators(8)):
        assert is_finished(text) and not any(token in text for token in SPECIAL_TOKENS)


@pytest.mark.parametrize("positions", [64, 40, 8])
def test_a_small_context_is_never_exceeded(tokenizer, positions, caplog):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=positions, n_embd=16, n_layer=1, n_head=1)
    captioner = GPT2LMHeadModel(config).eval()
    assert is_finished(next_captions(captioner, tokenizer, [PREFIX * 10], generators(1))[0])
    assert caplog.text.count("too long for the captioner") == 1  # once, however often it samples


def test_a_long_story_still_gets_a_caption(captioner, tokenizer):
    assert is_finished(next_captions(captioner, tokenizer, [PREFIX * 30], generators(1))[0])


@pytest.mark.parametrize("arguments", [{"temperature": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"generators": []}])
def test_bad_arguments_are_named(captioner, tokenizer, arguments):
    given = {"prefixes": [PREFIX], "generators": generators(1)} | arguments
    with pytest.raises(ValueError, match=next(iter(arguments))):
        next_captions(captioner, tokenizer, **given)
