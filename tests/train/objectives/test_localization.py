import json
import math

import pytest
import torch
from accelerate import Accelerator
from transformers import CLIPTokenizer

from train.config import TrainingConfig, parse_config
from train.data.flintstones import FlintstonesRelease
from train.objectives.localization import localization_loss, mentions, own_pixels
from train.saganets import Coordinated


LEFT, RIGHT = (0, 100, 300, 400), (330, 100, 640, 400)  # of the 640 x 480 original


@pytest.fixture(scope="module")
def duo_show(make_release, tmp_path_factory):
    """A release whose clips show Gus on the left and Mabel on the right; the first to train on names Gus alone."""
    folder = make_release(tmp_path_factory.mktemp("duo") / "gulch", size=16, clips=8, frames=5)
    path = folder / "flintstones_annotations_v1-0.json"
    records = json.loads(path.read_text())
    for record in records:
        record["description"] = "Mabel is talking to Gus in the yard."
        record["characters"] = [
            {"entityLabel": name, "entitySpan": None, "rectangles": [box] * 3}
            for name, box in (("gus", LEFT), ("mabel", RIGHT))
        ]
    records[8]["description"] = "Gus is in the yard. He is talking."
    path.write_text(json.dumps(records))
    return folder


def test_a_pixel_belongs_to_the_one_box_that_it_lies_in():
    boxes = torch.tensor([[[0.0, 0.0, 0.6, 1.0], [0.4, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]]])
    own = own_pixels(boxes, (2, 4)).view(1, 3, 2, 4)
    # columns' centres: 1/8, 3/8, 5/8, 7/8; nothing lies in both, as they overlap between the second and the third
    assert own[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert own[0, 1].int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert not own[0, 2].any()
    both = own_pixels(torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0]]]), (1, 2))
    assert both[0].int().tolist() == [[0, 1], [0, 0]]


def test_the_loss_is_that_of_the_definition():
    tokens = torch.zeros(1, 2, 5)
    tokens[0, 0, 1] = tokens[0, 1, [2, 3]] = 1  # two tokens name the second
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]])
    # two heads, two pixels; token 0 and 4 are none of theirs, whatever they get
    maps = torch.tensor([[[0.5, 0.3, 0.1, 0.0, 0.1], [0.2, 0.2, 0.1, 0.3, 0.2]], [[0.0, 0.1, 0.1, 0.2, 0.6]] * 2])
    left, right = (0.3 + 0.1, 0.1 + 0.3), (0.2 + 0.1, 0.4 + 0.3)  # attention to the first and to the second, two heads
    expected = -(math.log(left[0] / sum(left)) + math.log(right[1] / sum(right))) / 2
    assert float(localization_loss([maps], tokens, boxes, (1, 2))) == pytest.approx(expected, rel=1e-4)
    # a map in which everybody looks at the right name costs nothing, and counts as much as the other
    right_maps = torch.tensor([[[0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0]]] * 2)
    assert float(localization_loss([right_maps], tokens, boxes, (1, 2))) == pytest.approx(0, abs=1e-4)
    assert float(localization_loss([maps, right_maps], tokens, boxes, (1, 2))) == pytest.approx(expected / 2, rel=1e-3)
    nobody = localization_loss([maps], tokens, torch.zeros(1, 2, 4), (1, 2))
    assert float(nobody) == 0


def test_a_frame_in_which_nobody_is_named_spoils_no_gradient():
    scores = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens, boxes = torch.zeros(2, 2, 5), torch.zeros(2, 2, 4)
    tokens[0, 0, 1] = tokens[0, 1, 2] = 1
    boxes[0] = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    localization_loss([scores.softmax(dim=-1)], tokens, boxes, (2, 2)).backward()
    assert scores.grad.isfinite().all() and scores.grad[0].any() and not scores.grad[1].any()


def test_a_map_of_another_size_than_the_latents_have_is_refused():
    with pytest.raises(ValueError, match="3 pixels"):
        localization_loss([torch.ones(1, 3, 5)], torch.ones(1, 1, 5), torch.ones(1, 1, 4), (2, 2))


def test_names_are_found_among_the_tokens(tiny_base):
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")
    caption = "Mabel sees Gus. Gusto is no name, gus is."
    found = mentions(caption, ("Gus", "Mabel", "Otto"), tokenizer)
    assert list(found) == ["Gus", "Mabel"]
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)
    words = {name: "".join(tokens[i] for i in places).replace("</w>", " ").split() for name, places in found.items()}
    assert [word.lower() for word in words["Gus"]] == ["gus", "gus"] and words["Mabel"][0].lower() == "mabel"
    assert mentions("", ("Gus",), tokenizer) == {}


def test_a_training_looks_up_names_where_they_stand(duo_show, flags, tmp_path):
    more = ["--data", str(duo_show), "--cache", str(tmp_path / "cache"), "--caption_dropout", "0.5", "--lora_targets"]
    config = parse_config(flags(tmp_path, "--l_local", "0.5", *more, "to_q,to_k,to_v"))
    coordinated = Coordinated(config, Accelerator(cpu=True))
    painter = coordinated.painter
    localizer, ids = painter.localizer, painter.latents.ids
    alone = FlintstonesRelease(duo_show).clip(ids[0]).caption.startswith("Gus")
    assert alone and not localizer.tokens[0].any() and not localizer.boxes[0].any()
    tokens, boxes = localizer.tokens[1], localizer.boxes[1]
    mabel, gus = tokens[1].nonzero().flatten(), tokens[0].nonzero().flatten()  # rows in the order of the cast
    assert len(mabel) and len(gus) and mabel.max() < gus.min()
    assert boxes[0, 0].tolist() == pytest.approx([0, 100 / 480, 300 / 640, 400 / 480])
    assert torch.equal(boxes[0], boxes[1])

    draws = painter.draw(ids[:8], torch.Generator().manual_seed(0))
    losses = painter.losses(draws, slice(0, 8), 0, 0)
    total, l2, local = (float(losses[name].detach()) for name in ("painter_loss", "term_l2", "term_local"))
    assert local > 0 and total == pytest.approx(l2 + 0.5 * local, rel=1e-4)
    assert float(painter.loss(draws, slice(0, 8)).detach()) == pytest.approx(l2, rel=1e-4)
    draws.captions[:] = len(painter.text)  # nobody is named
    assert float(painter.losses(draws, slice(0, 8), 0, 0)["term_local"]) == 0
    assert localizer.maps is None


def test_learning_brings_the_attention_to_the_name(duo_show, flags, tmp_path):
    """Ten steps of the term alone make it smaller, and leave the base as it was."""
    more = ["--data", str(duo_show), "--cache", str(tmp_path / "cache"), "--l_local", "1"]
    painter = Coordinated(parse_config(flags(tmp_path, *more)), Accelerator(cpu=True)).painter
    frozen = [(p, p.detach().clone()) for p in painter.unet.parameters() if not p.requires_grad]
    draws = painter.draw(painter.latents.ids[1:9], torch.Generator().manual_seed(0))
    optimizer, seen = torch.optim.Adam(painter.parameters, lr=0.05), []
    for _ in range(10):
        with painter.localizer.recording() as maps:
            painter.loss(draws, slice(0, 8))
            captioned = torch.ones(8, dtype=torch.bool)
            size = tuple(draws.latents.shape[-2:])
            term = painter.localizer.loss(maps, draws.clips, draws.frames, captioned, size)
        seen.append(float(term))
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
    assert seen[-1] < 0.8 * seen[0]
    assert all(torch.equal(p, before) for p, before in frozen)


@pytest.mark.parametrize("more", [{"objective": "temporal", "l_coher": 1.0}, {"mirror": True}])
def test_what_it_does_not_go_with_is_said(more):
    with pytest.raises(ValueError, match="l_local"):
        TrainingConfig(data="data", base="base", l_local=0.1, **more)
