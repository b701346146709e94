"""A release of random pictures, written by hand in FlintstonesSV's layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, ResNetConfig, ResNetModel

from train.base import train_tokenizers


NAMES = ("Gus", "Mabel", "Otto")
PLACES = ("kitchen", "yard")


def clip_id(season: int, episode: int, number: int) -> str:
    return f"s_{season:02d}_e_{episode:02d}_shot_{number * 100:06d}_{number * 100 + 74:06d}"


NO_BOXES = ((), (), ())


def write_release(
    root: Path, size: int = 16, clips: int = 6, frames: int = 3, names: tuple = NAMES, boxes: tuple = NO_BOXES
) -> Path:
    """Three training episodes, one to validate and one to test, each of `clips` clips with one character each."""
    generator = np.random.default_rng(0)
    splits = {"test": [(1, 5)], "train": [(1, 1), (1, 2), (2, 1)], "val": [(1, 4)]}
    ids = {name: [clip_id(s, e, n) for s, e in episodes for n in range(clips)] for name, episodes in splits.items()}
    folder = root / "video_frames_sampled"
    folder.mkdir(parents=True)
    records = []
    for i, id in enumerate(sum(ids.values(), [])):
        name, place = names[i % len(names)], PLACES[i % 2]
        records.append(
            {
                "globalID": id,
                "setting": place,
                "description": f"{name} is in the  {place}.\n He is talking. ",
                "characters": [{"entityLabel": f" {name.lower()}", "entitySpan": None, "rectangles": boxes}],
                "objects": [],
            }
        )
        np.save(folder / f"{id}.npy", generator.integers(0, 256, (frames, size, size, 3), dtype=np.uint8))
    (root / "flintstones_annotations_v1-0.json").write_text(json.dumps(records))
    (root / "train-val-test_split.json").write_text(json.dumps(ids))
    return root


@pytest.fixture
def release_folder(tmp_path):
    return write_release(tmp_path / "show")


@pytest.fixture(scope="session")
def make_release():
    """`write_release` itself, for releases of another size or for a whole module."""
    return write_release


@pytest.fixture(scope="session")
def vae(make_vae):
    return make_vae(0)


@pytest.fixture(scope="session")
def text_parts(tmp_path_factory):
    captions = ["Gus is in the kitchen.", "Mabel is talking to Gus in the yard."]
    tokenizer, _ = train_tokenizers(captions, tmp_path_factory.mktemp("tokenizers"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        ).eval()
    return encoder, tokenizer, captions


@pytest.fixture(scope="session")
def tiny_clip(tiny_base, tmp_path_factory):
    """The folder of a random CLIP pair with the tokens of `tiny_base`, 8 px."""
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**sizes, **tokens, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length}
    vision = {**sizes, "image_size": 8, "patch_size": 4}
    folder = tmp_path_factory.mktemp("tiny_clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(projection_dim=8, text_config=text, vision_config=vision)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_features(tmp_path_factory):
    """The folder of a random network of the kind that `train.features` trains."""
    folder = tmp_path_factory.mktemp("tiny_features")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = ResNetConfig(layer_type="basic", embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])
        ResNetModel(config).eval().save_pretrained(folder)
    return folder
