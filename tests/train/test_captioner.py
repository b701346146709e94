import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from sagan_pipeline.captioner import SPECIAL_TOKENS, training_example
from train.base import train_tokenizers
from train.captioner import MAX_PREFIX, Example, StoryCaptions, captioner_loss, load_captioner
from train.config import parse_config
from train.data.flintstones import FlintstonesRelease


EXAMPLES = [
    Example([], "Gus is in the kitchen.", "a"),
    Example(["Gus is in the kitchen.", "He is talking to Mabel."], "Mabel is laughing in the yard.", "b"),
    Example(["Otto is in the yard. He is talking."] * 3, "Gus laughs.", "c"),
]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    captions = [caption for example in EXAMPLES for caption in (*example.captions, example.target)]
    _, tokenizer = train_tokenizers(captions, tmp_path_factory.mktemp("tokenizers"))
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"n_positions": 128, "n_embd": 16, "n_layer": 2, "n_head": 2}
        end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
        # large weights, so that the predictions differ from token to token
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), initializer_range=0.5, **size, **end)).eval()
    return model, tokenizer


def surprises(model, tokenizer, example: Example) -> list[float]:
    """Minus the log-probability of each token of the target caption and of the end of text, given all before it."""
    ids, _ = training_example(example.captions, example.target, tokenizer, model.config.n_positions)
    ids = torch.as_tensor(ids).tolist()
    starts = [i for i in range(len(ids)) if tokenizer.decode(ids[i:-1]).strip() == example.target]
    assert ids[-1] == tokenizer.eos_token_id and starts
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return [-float(logits[i - 1, ids[i]]) for i in range(min(starts), len(ids))]


@pytest.mark.parametrize("chosen", [[0], [1], [2], [0, 1, 2]], ids=["k=0", "k=2", "k=3", "a batch"])
def test_loss_by_hand_is_on_the_targets_tokens_only(captioner, chosen):
    model, tokenizer = captioner
    examples = [EXAMPLES[i] for i in chosen]
    expected = [surprise for example in examples for surprise in surprises(model, tokenizer, example)]
    loss = float(captioner_loss(model, tokenizer, examples).detach())
    assert loss == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_tokens_of_the_prefix_bear_no_loss(captioner):
    """Making the prefix itself more or less likely changes nothing: its logits have no gradient."""
    model, tokenizer = captioner
    ids, labels = training_example(EXAMPLES[1].captions, EXAMPLES[1].target, tokenizer, 128)
    ids, labels = torch.as_tensor(ids)[None], torch.as_tensor(labels)[None]
    out = model(input_ids=ids, labels=labels)
    (gradient,) = torch.autograd.grad(out.loss, out.logits)
    bears_loss = gradient[0].abs().sum(dim=-1) > 0  # position i predicts token i + 1
    assert torch.equal(bears_loss[:-1], labels[0, 1:] != -100) and not bears_loss[-1]
    assert int(bears_loss.sum()) == len(surprises(model, tokenizer, EXAMPLES[1]))


def test_a_batch_does_not_change_its_members(captioner):
    model, tokenizer = captioner
    pair = float(captioner_loss(model, tokenizer, [EXAMPLES[2], EXAMPLES[2]]).detach())
    assert pair == pytest.approx(float(captioner_loss(model, tokenizer, [EXAMPLES[2]]).detach()), rel=1e-5)


def test_stories_of_a_split(release_folder):
    release = FlintstonesRelease(release_folder)
    stories = StoryCaptions(release, "test")
    assert len(stories.stories) == 3 and MAX_PREFIX == 3
    example = stories.example(1, 2)
    ids = release.splits["test"][1:4]
    assert example.clip_id == ids[2] and example.target == release.clip(ids[2]).caption
    assert example.captions == [release.clip(id).caption for id in ids[:2]]
    assert stories.example(0, 0).captions == []


def test_prefix_lengths_are_drawn_evenly(release_folder):
    stories = StoryCaptions(FlintstonesRelease(release_folder), "train")
    examples = stories.examples(2000, torch.Generator().manual_seed(0))
    counts = [sum(len(e.captions) == k for e in examples) for k in range(5)]
    assert counts[4] == 0 and all(430 < count < 570 for count in counts[:4])
    assert examples == stories.examples(2000, torch.Generator().manual_seed(0))
    assert {e.clip_id for e in examples} == {id for story in stories.stories for id in story}


def test_a_split_without_stories(make_release, tmp_path):
    release = FlintstonesRelease(make_release(tmp_path / "short", clips=3))
    with pytest.raises(ValueError, match="no story"):
        StoryCaptions(release, "val")


def test_dropout_is_the_configurations_own_unless_it_is_set(tiny_base):
    places = ["--data", "d", "--base", str(tiny_base)]
    found = []
    for flags in ([], ["--captioner_dropout", "0.2"], ["--captioner_dropout", "0.4"]):
        model, _ = load_captioner(parse_config([*places, *flags]))
        found.append({module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)})
    assert found == [{0.0}, {0.2}, {0.4}]
    with pytest.raises(SystemExit):
        parse_config([*places, "--captioner_dropout", "1"])
