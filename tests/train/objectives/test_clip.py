import math

import pytest
import torch

from train.objectives.clip import CharTerm, character_loss, clip_loss, crop
from train.objectives.interface import Found
from train.similarity import ClipSimilarity


def test_clip_loss_by_hand():
    images = torch.tensor([[2.0, 0.0], [1.0, 1.0]], requires_grad=True)
    texts = torch.tensor([[0.0, 3.0], [5.0, 0.0]])
    loss = clip_loss(images, texts, torch.tensor([1.0, 0.5]))
    assert loss.item() == pytest.approx((1 + 0.5 * (1 - math.sqrt(0.5))) / 2)
    (gradient,) = torch.autograd.grad(loss, [images])
    assert gradient[0].tolist() == pytest.approx([0, -0.25])  # cos of (2, y) and (0, 1) rises by y / 2


def test_character_loss_by_hand():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    assert character_loss(a, b, torch.tensor([1.0, 0.5]), stories=2).item() == pytest.approx((2 + 0.5 * 0.4) / 2)


def test_crop_by_hand():
    picture = torch.arange(2 * 100.0).view(2, 10, 10)
    assert torch.equal(crop(picture, (0.2, 0.5, 0.4, 1.0)), picture[:, 5:10, 2:4])
    assert crop(picture, (0.99, 0.99, 1.0, 1.0)).shape == (2, 1, 1)
    assert crop(picture, None) is picture


def test_gradients_reach_the_picture_alone(tiny_clip, tiny_base):
    clip = ClipSimilarity(tiny_clip, tiny_base)
    pictures = torch.zeros(2, 3, 16, 16, requires_grad=True)
    texts = clip.texts(["Gus is in the kitchen.", "Otto is in the yard."])
    loss = clip_loss(clip.images(pictures), texts, torch.ones(2))
    loss.backward()
    assert pictures.grad.abs().sum() > 0 and not texts.requires_grad
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_the_embeddings_are_those_of_transformers(tiny_clip, tiny_base):
    clip = ClipSimilarity(tiny_clip, tiny_base)
    draw = torch.Generator().manual_seed(0)
    pictures = torch.rand((2, 3, 8, 8), generator=draw) * 2 - 1
    words = clip.tokenizer(["Gus", "Otto is in the yard."], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        theirs = clip.model(input_ids=words.input_ids, pixel_values=pictures)
    ours = torch.nn.functional.normalize(clip.images(pictures), dim=1)
    assert torch.allclose(ours, theirs.image_embeds, atol=1e-6)
    texts = torch.nn.functional.normalize(clip.texts(["Gus", "Otto is in the yard."]), dim=1)
    assert torch.allclose(texts, theirs.text_embeds, atol=1e-6)


def test_a_folder_without_a_pair_is_named(tiny_base):
    with pytest.raises(ValueError, match="`clip` .* holds no CLIP pair"):
        ClipSimilarity(tiny_base / "vae", tiny_base)


def test_characters_are_compared_where_their_boxes_are(make_coordinated):
    """What lies outside of both boxes has no say; where nobody is placed, all has."""
    trained = make_coordinated("--objective", "clip", "--l_char", "1")
    painter = trained.painter
    batch = painter.batch(trained.draws(0).painter, slice(0, 8), seed=1, step=0)
    (term,) = painter.objective.terms.values()
    assert isinstance(term, CharTerm)

    def gradient(placed: bool) -> torch.Tensor:
        found = Found(batch, batch.latents, torch.ones(8), lambda z: z, 8, placed)
        pictures = torch.rand((8, 3, 16, 16), generator=torch.Generator().manual_seed(0)).requires_grad_()
        found._pictures = pictures
        return torch.autograd.grad(term(found), [pictures])[0]

    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:13, 4:12] = True  # 120 to 400 of 480, 160 to 480 of 640
    inner, whole = gradient(True), gradient(False)
    assert inner[..., ~inside].abs().max() == 0 < inner[..., inside].abs().min(dim=0).values.max()
    assert whole[..., ~inside].abs().max() > 0
    batch.mirrored = [True] * 8
    moved = gradient(True)
    assert moved[..., ~inside.flip(-1)].abs().max() == 0
