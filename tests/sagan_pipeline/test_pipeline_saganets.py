"""What a call promises: determinism, independence, alpha, threads, shapes, refusals."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from sagan_pipeline import Frame, SAGANetsPipelineOutput, Story


PREFIX = ["Gus is in the kitchen.", "He is talking to Mabel."]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensors(out: SAGANetsPipelineOutput, story: int = 0) -> torch.Tensor:
    return torch.stack(out.images[story])


def test_the_same_seed_tells_the_same_story_and_leaves_the_global_state_alone(either_pipe):
    state = torch.get_rng_state()
    a = either_pipe(PREFIX, num_frames=4, generator=seeded(), output_type="pt")
    b = either_pipe(PREFIX, num_frames=4, generator=seeded(), output_type="pt")
    c = either_pipe(PREFIX, num_frames=4, generator=seeded(8), output_type="pt")
    assert a.captions == b.captions and torch.equal(tensors(a), tensors(b))
    assert not torch.equal(tensors(a), tensors(c))
    assert torch.equal(state, torch.get_rng_state())
    assert tensors(a).shape == (4, 3, 16, 16) and 0 <= tensors(a).min() and tensors(a).max() <= 1


def test_a_frame_depends_on_its_own_caption_seed_and_place_only(pipe):
    captions = [*PREFIX, "Otto and Nell are driving in the car."]
    a = pipe.paint(captions, generator=seeded(), output_type="latent")
    changed = [captions[0], "Mabel is laughing in the yard.", captions[2]]
    b = pipe.paint(changed, generator=seeded(), output_type="latent")
    assert torch.equal(a.images[0][0], b.images[0][0]) and torch.equal(a.images[0][2], b.images[0][2])
    assert not torch.equal(a.images[0][1], b.images[0][1])
    assert len({frame.seed for frame in a.stories[0].frames}) == 3


def test_alpha_zero_is_the_base(pipe, build_pipe):
    out = pipe.paint(PREFIX, lora_alpha=0, generator=seeded(), output_type="latent")
    base = build_pipe().paint(PREFIX, generator=seeded(), output_type="latent")
    assert torch.equal(tensors(out), tensors(base))
    assert not torch.equal(tensors(out), tensors(pipe.paint(PREFIX, generator=seeded(), output_type="latent")))


@pytest.mark.parametrize("alpha", [10.0, 32.0])
def test_alpha_is_what_peft_makes_of_the_file(pipe, build_pipe, adapter_path, alpha):
    stock = build_pipe()
    stock.load_lora_weights(str(adapter_path.parent), weight_name=adapter_path.name, adapter_name="show")
    stock.set_adapters("show", alpha / pipe.trained_lora_alpha)
    theirs = stock.paint(PREFIX, lora_alpha=0, generator=seeded(), output_type="latent")
    ours = pipe.paint(PREFIX, lora_alpha=alpha, generator=seeded(), output_type="latent")
    assert (tensors(ours) - tensors(theirs)).abs().max() < 1e-4
    base = pipe.paint(PREFIX, lora_alpha=0, generator=seeded(), output_type="latent")
    assert (tensors(ours) - tensors(base)).abs().max() > 0.01  # the adapter does something


def test_a_list_of_alphas_is_a_story_each_with_the_same_captions_and_noise(pipe):
    out = pipe(PREFIX, num_frames=3, lora_alpha=[10, 32], generator=seeded(), output_type="latent")
    assert out.captions[0] == out.captions[1]
    assert [frame.seed for frame in out.stories[0].frames] == [frame.seed for frame in out.stories[1].frames]
    for story, alpha in enumerate((10, 32)):
        alone = pipe(PREFIX, num_frames=3, lora_alpha=alpha, generator=seeded(), output_type="latent")
        assert torch.equal(tensors(out, story), tensors(alone))


def test_threads_under_different_alphas_get_what_they_get_alone(pipe):
    alphas = [10.0, 32.0, 0.0, 48.0]
    alone = [tensors(pipe.paint(PREFIX, lora_alpha=a, generator=seeded(), output_type="latent")) for a in alphas]
    wrong: list[str] = []

    def tell(alpha: float, expected: torch.Tensor) -> None:
        try:
            for _ in range(6):
                out = pipe(PREFIX, num_frames=2, lora_alpha=alpha, generator=seeded(), output_type="latent")
                if not torch.equal(tensors(out), expected):
                    wrong.append(f"alpha {alpha}")
        except Exception as error:  # a thread's error would be lost
            wrong.append(repr(error))

    threads = [threading.Thread(target=tell, args=pair) for pair in zip(alphas, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_stream_tells_the_same_story(pipe):
    whole = pipe(PREFIX, num_frames=4, generator=seeded(), output_type="np")
    frames = list(pipe.stream(PREFIX, num_frames=4, generator=seeded(), output_type="np"))
    assert [frame.caption for frame in frames] == whole.captions[0]
    assert [frame.seed for frame in frames] == [frame.seed for frame in whole.stories[0].frames]
    for frame, image in zip(frames, whole.images[0], strict=True):
        assert np.abs(frame.image - image).max() < 2 / 255


def test_a_stream_refuses_before_the_first_frame(pipe):
    with pytest.raises(ValueError, match="num_frames"):
        pipe.stream(PREFIX, num_frames=1)
    with pytest.raises(ValueError, match="stream"):
        pipe.stream(PREFIX, lora_alpha=[10, 32])


def test_no_prefix_opens_the_story(pipe):
    for prefix in (None, []):
        out = pipe(prefix, num_frames=2, generator=seeded())
        assert len(out.captions[0]) == 2 and not any(f.caption_given for f in out.stories[0].frames)
        assert all(caption.endswith(".") for caption in out.captions[0])


def test_several_stories_have_their_own_seeds(pipe):
    stories = [Story.from_captions([PREFIX[0]]), Story.from_captions([PREFIX[0]])]
    out = pipe(stories, num_frames=2, generator=[seeded(1), seeded(2)], output_type="latent")
    alone = pipe(PREFIX[0], num_frames=2, generator=seeded(2), output_type="latent")
    assert out.captions[1] == alone.captions[0]
    assert torch.allclose(tensors(out, 1), tensors(alone), atol=1e-4)
    assert not torch.equal(tensors(out, 0), tensors(out, 1))


def test_given_pictures_are_kept(pipe):
    picture = Image.new("RGB", (20, 30), "red")
    story = Story.from_captions(PREFIX, [picture, None])
    out = pipe(story, num_frames=3, generator=seeded())
    first, second, _ = out.stories[0].frames
    assert first.image is picture and first.image_given and first.seed is None
    assert second.image.size == (16, 16) and not second.image_given


def test_a_told_story_goes_on_with_its_pictures(pipe):
    told = pipe(PREFIX, num_frames=3, lora_alpha=10, generator=seeded()).stories[0]
    more = pipe(told, num_frames=4, lora_alpha=32, generator=seeded(8)).stories[0]
    streamed = list(pipe.stream(told, num_frames=4, lora_alpha=32, generator=seeded(8)))
    for frames in (more.frames, streamed):
        assert all(a == b for a, b in zip(frames[:3], told.frames, strict=True))  # and how each was made
        assert frames[3].lora_alpha == 32 and frames[3].index == 3 and frames[3].image is not None


def test_one_frame_can_be_painted_again(pipe):
    told = pipe(PREFIX, num_frames=3, generator=seeded()).stories[0]
    again = pipe.paint(told.with_frame(1, image=None), generator=seeded()).stories[0]
    assert again.images[0] is told.images[0] and again.images[2] is told.images[2]
    assert again.frames[1].seed == told.frames[1].seed
    difference = np.asarray(again.images[1]).astype(int) - np.asarray(told.images[1])
    assert abs(difference).max() <= 2


def test_output_types_agree(pipe):
    images = {kind: pipe.paint(PREFIX, generator=seeded(), output_type=kind).images[0] for kind in ("pil", "np", "pt")}
    assert images["np"][0].shape == (16, 16, 3) and images["pt"][0].shape == (3, 16, 16)
    assert np.array_equal(images["np"][1], images["pt"][1].permute(1, 2, 0).numpy())
    assert np.array_equal(np.asarray(images["pil"][1]), (images["np"][1] * 255).round().astype("uint8"))


def test_tuple_and_dict(pipe):
    out = pipe.paint(PREFIX, generator=seeded())
    stories, images, captions = pipe.paint(PREFIX, generator=seeded(), return_dict=False)
    assert captions == out.captions and np.array_equal(np.asarray(images[0][0]), np.asarray(out.images[0][0]))
    assert stories[0].captions == PREFIX


def test_a_callback_sees_every_step_and_may_replace_the_latents(pipe):
    seen = []

    def callback(pipe, step, timestep, values):
        seen.append(step)
        return {"latents": torch.zeros_like(values["latents"])} if step == 2 else values

    out = pipe.paint(
        PREFIX, num_inference_steps=3, generator=seeded(), output_type="latent", callback_on_step_end=callback
    )
    assert seen == [0, 1, 2] and not tensors(out).any()


def test_guidance_and_steps_are_written_into_the_frames(pipe):
    out = pipe.paint(PREFIX, guidance_scale=1.0, num_inference_steps=2, lora_alpha=10, generator=seeded())
    frame = out.stories[0].frames[0]
    assert (frame.guidance_scale, frame.num_inference_steps, frame.lora_alpha, frame.index) == (1.0, 2, 10.0, 0)
    assert frame.image.size == (16, 16)


def test_other_sizes(pipe):
    assert pipe.paint(PREFIX, height=24, width=32, generator=seeded()).images[0][0].size == (32, 24)


def test_captions_alone_are_those_of_a_call(pipe):
    out = pipe(PREFIX[0], num_frames=4, generator=seeded())
    assert pipe.write_captions(PREFIX[0], num_frames=4, generator=seeded()) == out.captions


def test_long_captions_are_cut_with_a_warning(pipe, caplog):
    long = "Gus is in the kitchen " + "and talking to Mabel " * 30 + "zebra."
    pipe.paint([long], generator=seeded(), num_inference_steps=1)
    assert "zebra" in caplog.text


def test_without_a_captioner_only_given_captions_are_painted(build_pipe):
    pipe = build_pipe()
    pipe.register_modules(captioner=None, captioner_tokenizer=None)
    assert len(pipe.paint(PREFIX, generator=seeded()).images[0]) == 2
    with pytest.raises(ValueError, match="captioner"):
        pipe(PREFIX, num_frames=3)
    with pytest.raises(ValueError, match="no adapter"):
        pipe.paint(PREFIX, lora_alpha=10)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "   ",
        "x" * 10_000,
        "\U0001f995",
        "Gus waves \U0001f44b.",
        "Gus 1\ufe0f\u20e3",
        "\u202eGus",
        "Gus\x00.",
        "...",
        5,
        [3],
        [None],
        ["Gus.", ""],
        b"Gus",
        Story(None),
        Story(["Gus."]),
        Story([Frame(5)]),
    ],
)
def test_bad_prefixes(pipe, prefix):
    with pytest.raises(ValueError, match="prefix"):
        pipe(prefix)


@pytest.mark.parametrize(
    "arguments",
    [{"num_frames": value} for value in (-1, 0, 1, 65, 2.5, True, "4")]
    + [{"lora_alpha": value} for value in (math.nan, math.inf, -math.inf, -1, 10**400, "10", True, [], [10, math.nan])]
    + [{"num_inference_steps": value} for value in (0, -3, 2.5, 10**6)]
    + [{"guidance_scale": value} for value in (math.nan, -1, "5")]
    + [{"temperature": value} for value in (math.nan, -1)]
    + [{"height": value} for value in (0, 17, -16)]
    + [{"output_type": "jpeg"}, {"negative_prompt": 3}, {"generator": [seeded()] * 2}, {"generator": 7}]
    + [{"callback_on_step_end_tensor_inputs": ["noise"]}],
)
def test_bad_arguments_are_named(pipe, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        pipe(PREFIX, **arguments)


@pytest.mark.parametrize("image", [Image.new("RGBA", (8, 8)), Image.new("L", (8, 8)), np.zeros((8, 8, 3), np.uint8)])
def test_bad_images_are_named(pipe, image):
    with pytest.raises(ValueError, match="frame 1: the image"):
        pipe(Story.from_captions(["Gus."], [image]))
