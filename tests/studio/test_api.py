"""The endpoints as a program meets them: a server, `gradio_client`, and the tools that MCP lists."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from sagan_pipeline.story_file import read_png, read_story_json
from studio import build_demo, look


OPENING = "Gus is in the kitchen. He is talking."
SEED, STEPS, GUIDANCE = ("seed", "int", 7), ("steps", "int", None), ("guidance", "float", None)
ALPHA, TEMPERATURE, ADAPTER = (
    ("alpha", "float", 32.0),
    ("temperature", "float", 0.8),
    ("adapter", "Literal['own']", "own"),
)
GALLERY = "list[dict(image: filepath, caption: str | None) | dict(video: filepath, caption: str | None)]"
KINDS = "Literal['strip', 'grid', 'comic', 'storybook', 'pdf', 'gif', 'frames', 'story']"
# a program relies on these: (name, type, default) of what goes in, types of what comes out
CONTRACT = {
    "/tell_story": (
        [("opening", "str", ""), ("num_frames", "int", 4), SEED, ALPHA, STEPS, GUIDANCE, TEMPERATURE, ADAPTER],
        [GALLERY, "str"],
    ),
    "/next_caption": (
        [("captions", "str", ""), SEED, TEMPERATURE, ("suggestions", "int", 3)],
        ["str | float | bool | list | dict"],
    ),
    "/paint_frame": ([("caption", "str", None), SEED, ALPHA, STEPS, GUIDANCE, ADAPTER], ["filepath"]),
    "/compare_alpha": (
        [("captions", "str", None), ("alphas", "str", "0, 10, 32"), SEED, STEPS, GUIDANCE, ADAPTER],
        [GALLERY],
    ),
    "/export_story": ([("story", "str", None), ("kind", KINDS, "comic"), ("title", "str", "")], ["filepath"]),
}


@pytest.fixture(scope="module")
def url(tiny_pipe):
    demo = build_demo(tiny_pipe, adapters=None, own="own")
    _, url, _ = demo.launch(prevent_thread_lock=True, mcp_server=True, quiet=True, **look())
    yield url
    demo.close()


@pytest.fixture(scope="module")
def client(url):
    client = Client(url, verbose=False)
    yield client
    client.close()


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def alike(path: str, image: Image.Image) -> bool:
    return abs(pixels(path) - np.asarray(image, dtype=int)).max() <= 1


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_names_types_and_defaults(client):
    seen = {
        name: (
            [
                (each["parameter_name"], each["python_type"]["type"], each["parameter_default"])
                for each in endpoint["parameters"]
            ],
            [each["python_type"]["type"] for each in endpoint["returns"]],
        )
        for name, endpoint in client.view_api(return_format="dict", print_info=False)["named_endpoints"].items()
    }
    assert seen == CONTRACT


def test_tell_story_tells_the_pipelines_own(client, tiny_pipe):
    frames, text = client.predict(OPENING, 3, api_name="/tell_story")
    out = tiny_pipe(OPENING, num_frames=3, lora_alpha=32, generator=seeded())
    assert [frame["caption"] for frame in frames] == out.captions[0]
    assert all(alike(frame["image"], image) for frame, image in zip(frames, out.images[0], strict=True))
    assert [Path(frame["image"]).name for frame in frames] == ["frame-01.png", "frame-02.png", "frame-03.png"]
    story, told = read_story_json(text).story, out.stories[0]
    assert [(f.seed, f.caption_given, f.written_from) for f in story.frames] == [
        (f.seed, f.caption_given, f.written_from) for f in told.frames
    ]
    assert read_png(Path(frames[1]["image"]).read_bytes()).story.frames[0].seed == told.frames[1].seed


def test_next_caption_begins_with_the_one_that_a_story_takes(client, tiny_pipe):
    suggestions = client.predict(OPENING, suggestions=2, api_name="/next_caption")
    assert len(suggestions) == 2 and suggestions[0] == tiny_pipe.write_captions(OPENING, 2, seeded())[0][1]
    assert client.predict("", suggestions=1, api_name="/next_caption")[0]


def test_paint_frame_paints_the_same_again(client):
    first = client.predict("Otto is in the yard.", 5, api_name="/paint_frame")
    file = read_png(Path(first).read_bytes())
    assert file.story.captions == ["Otto is in the yard."] and file.story.frames[0].seed == 5
    assert (pixels(first) == pixels(client.predict("Otto is in the yard.", 5, api_name="/paint_frame"))).all()
    assert (pixels(first) != pixels(client.predict("Otto is in the yard.", 6, api_name="/paint_frame"))).any()


def test_compare_alpha_shares_captions_and_noise(client, tiny_pipe):
    captions = [OPENING, "Mabel is in the yard."]
    pictures = client.predict("\n".join(captions), "0, 32", api_name="/compare_alpha")
    assert [each["caption"] for each in pictures] == [f"alpha {a}: {c}" for c in captions for a in (0, 32)]
    for number, alpha in enumerate((0, 32)):
        out = tiny_pipe.paint(captions, lora_alpha=alpha, generator=seeded())
        for frame, image in enumerate(out.images[0]):
            assert alike(pictures[2 * frame + number]["image"], image)


def test_export_story_makes_each_kind_of_file(client):
    _, text = client.predict(OPENING, 2, api_name="/tell_story")
    starts = {"strip": b"\x89PNG", "pdf": b"%PDF", "gif": b"GIF89a", "frames": b"PK", "story": b"{"}
    for kind, start in starts.items():
        path = client.predict(text, kind, "A title", api_name="/export_story")
        assert Path(path).read_bytes().startswith(start), kind
    strip = client.predict(text, "strip", api_name="/export_story")
    assert Image.open(io.BytesIO(Path(strip).read_bytes())).width > 1000


@pytest.mark.parametrize(
    ("endpoint", "arguments", "why"),
    [
        ("/tell_story", (OPENING, 17), "num_frames"),
        ("/tell_story", ("Gus.\nMabel.", 1), "the opening alone has 2"),
        ("/tell_story", (OPENING, 1, -1), "less than minimum value 0"),
        ("/next_caption", (OPENING, 7, 9.0), "temperature"),
        ("/next_caption", (OPENING, 7, 0.5, 6), "suggestions"),
        ("/paint_frame", ("",), "caption"),
        ("/paint_frame", ("Gus.", 7, 65.0), "lora_alpha"),
        ("/paint_frame", ("Gus.", 7, 32.0, 51), "num_inference_steps"),
        ("/compare_alpha", ("",), "0 lines"),
        ("/compare_alpha", ("Gus.", "much"), "alphas"),
        ("/compare_alpha", ("Gus.", "1,2,3,4,5,6,7"), "7 numbers"),
        ("/export_story", ("{}", "pdf"), "no story file"),
    ],
)
def test_what_is_refused_says_why(client, endpoint, arguments, why):
    with pytest.raises(AppError, match=why):
        client.predict(*arguments, api_name=endpoint)


def test_an_adapter_that_was_typed_is_no_path(client):
    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict("Gus.", adapter="../../etc/passwd", api_name="/paint_frame")


@pytest.mark.parametrize("name", ["/act", "/work", "/settle", "/drop", "/take"])
def test_the_rest_is_private(client, name):
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict(api_name=name)


def test_mcp_lists_the_same_functions_with_descriptions(url):
    with urllib.request.urlopen(f"{url}gradio_api/mcp/schema", timeout=60) as answer:
        tools = {tool["name"]: tool for tool in json.load(answer)}
    assert set(tools) == {name.removeprefix("/") for name in CONTRACT}
    kinds = {"str": "string", "int": "integer", "float": "number"}
    for name, (parameters, _) in CONTRACT.items():
        tool = tools[name.removeprefix("/")]
        assert len(tool["description"]) > 40
        properties = tool["inputSchema"]["properties"]
        assert list(properties) == [parameter for parameter, _, _ in parameters]
        for parameter, kind, _ in parameters:
            assert properties[parameter]["type"] == kinds.get(kind, "string")
            assert len(properties[parameter]["description"]) > 5, (name, parameter)
