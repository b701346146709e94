"""Stories as data: facts for JSON and back, and refusals."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from sagan_pipeline import Frame, Story


def test_facts_survive_json(pipe):
    generator = torch.Generator().manual_seed(7)
    story = pipe(["Gus is in the kitchen."], num_frames=3, lora_alpha=10, generator=generator).stories[0]
    facts = json.loads(json.dumps(story.facts()))
    bare = Story.from_facts(facts)
    assert bare.facts() == story.facts() and bare.images == [None] * 3
    whole = Story.from_facts(facts, story.images)
    assert all(a == b for a, b in zip(whole.frames, story.frames, strict=True)) and whole.seed == story.seed
    assert [frame.index for frame in whole.frames] == [0, 1, 2]
    assert [frame.caption_given for frame in whole.frames] == [True, False, False]


@pytest.mark.parametrize("facts", [{}, {"frames": 3, "seed": 1}, {"frames": [{"colour": 1}], "seed": 1}, [], None])
def test_other_facts_are_refused(facts):
    with pytest.raises(ValueError, match="facts"):
        Story.from_facts(facts)


def test_as_many_images_as_frames():
    picture = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match="images"):
        Story.from_captions(["Gus."], [picture, picture])
    with pytest.raises(ValueError, match="images"):
        Story.from_facts(Story([Frame("Gus.")]).facts(), [])


def test_a_changed_frame_leaves_the_others():
    story = Story.from_captions(["Gus.", "Mabel.", "Otto."])
    changed = story.with_frame(1, caption="Nell.")
    assert changed.captions == ["Gus.", "Nell.", "Otto."] and story.captions[1] == "Mabel."
