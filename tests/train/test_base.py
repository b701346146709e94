"""Every stage of the base at its real size, for a step or two, on a handful of random pictures."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, GPT2LMHeadModel, GPT2Tokenizer

from sagan_pipeline.captioner import SPECIAL_TOKENS
from train.autoencoder import VAE_CONFIG, Pictures, psnr, to_tensor
from train.base import (
    MAX_TOKENS,
    clip_config,
    main,
    new_unet,
    text_encoder_of,
    train_tokenizers,
)
from train.data.flintstones import FlintstonesRelease
from train.similarity import ClipSimilarity
from train.velocity import main as velocity


CAPTIONS = ["Gus is in the kitchen. He is talking.", "Mabel is in the yard. She is waving at Gus."]
ODD = "Gus\u2019s caf\u00e9 \U0001f995 \u6f22 42!"
STEPS = {"vae": 2, "clip": 2, "unet": 2, "decoder": 2, "captioner": 3}


@pytest.fixture(scope="module")
def base(make_release, tmp_path_factory):
    """The folder of a base, all its stages run."""
    root = tmp_path_factory.mktemp("base")
    for world in ("town", "gulch"):
        make_release(root / world, size=256, clips=4, frames=5)
    for stage, steps in STEPS.items():
        main([stage, *arguments(root), "--steps", str(steps), "--batch_size", "2"])
    main(["export", *arguments(root)])
    return root


def arguments(root) -> list[str]:
    return ["--town", str(root / "town"), "--gulch", str(root / "gulch"), "--out", str(root / "out")]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    return folder, *train_tokenizers(CAPTIONS, folder)


def test_tokenizers_take_any_text(tokenizers):
    _, clip, gpt2 = tokenizers
    assert isinstance(clip, CLIPTokenizer) and isinstance(gpt2, GPT2Tokenizer)
    for text in (*CAPTIONS, ODD):
        assert gpt2.decode(gpt2(text).input_ids) == text
        ids = clip(text).input_ids
        assert ids[0] == clip.bos_token_id and ids[-1] == clip.eos_token_id and clip.bos_token_id != clip.eos_token_id
        assert clip.eos_token_id not in ids[1:-1]  # nothing is unknown
    assert clip.decode(clip(CAPTIONS[0]).input_ids, skip_special_tokens=True).split()[:4] == "gus is in the".split()
    assert clip.model_max_length == MAX_TOKENS
    assert max(len(clip), len(gpt2)) <= 2048 + 256


def test_tokenizers_are_learnt_once(tokenizers):
    folder, clip, gpt2 = tokenizers
    clip_again, gpt2_again = train_tokenizers(["Something else altogether, in other words."], folder)
    assert clip_again.get_vocab() == clip.get_vocab() and gpt2_again.get_vocab() == gpt2.get_vocab()
    assert clip_again(ODD).input_ids == clip(ODD).input_ids and gpt2_again(ODD).input_ids == gpt2(ODD).input_ids


def test_the_text_encoder_is_the_pairs_own(tokenizers):
    _, tokenizer, _ = tokenizers
    clip = CLIPModel(clip_config(tokenizer)).eval()
    tokens = tokenizer(CAPTIONS, padding="max_length", return_tensors="pt").input_ids
    alone = text_encoder_of(clip)
    assert isinstance(alone, CLIPTextModel)
    with torch.no_grad():
        assert torch.equal(alone(tokens).last_hidden_state, clip.text_model(tokens).last_hidden_state)


def test_crops_come_from_the_training_frames(release_folder):
    release = FlintstonesRelease(release_folder)
    for i, split in enumerate(("train", "val", "test")):
        for id in release.splits[split]:
            np.save(release.layout.folder / f"{id}.npy", np.full((2, 16, 16, 3), 100 * i, np.uint8))
    pictures = Pictures([release])
    crops = pictures.crops(16, 8, torch.Generator().manual_seed(0))
    assert crops.shape == (16, 3, 8, 8) and (crops == -1).all()
    frame = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    np.save(release.layout.folder / f"{release.splits['train'][0]}.npy", frame)
    one = Pictures([release])
    one.clips = one.clips[:1]
    whole = to_tensor(frame)
    kinds = {tuple(crop.flatten().tolist()) for crop in one.crops(16, 16, torch.Generator().manual_seed(0))}
    assert kinds == {tuple(x.flatten().tolist()) for x in (whole, whole.flip(-1))}


def test_psnr_by_hand():
    a = torch.zeros(1, 3, 4, 4)
    assert psnr(a, a + 0.2) == pytest.approx(20.0, abs=1e-4)  # 10 log10(2^2 / 0.2^2)


@pytest.mark.parametrize("argument", [("--rare", "-1"), ("--rare_told", "-1"), ("--timestep_power", "0")])
def test_settings_that_draw_nothing_are_refused(argument, release_folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["unet", "--town", str(release_folder), "--gulch", str(release_folder), *argument])
    assert f"{argument[0]}: {float(argument[1])}" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to learn on")
def test_a_gpu_that_is_not_there_is_refused(release_folder, tmp_path, capsys):
    releases = ["--town", str(release_folder), "--gulch", str(release_folder)]
    with pytest.raises(SystemExit):
        main(["unet", *releases, "--out", str(tmp_path), "--device", "cuda"])
    assert "--device" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_painter_learns_on_a_gpu(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "out" / "unet")
    main(["unet", *arguments(tmp_path / "base"), "--steps", "2", "--device", "cuda"])
    state = torch.load(tmp_path / "base" / "out" / "unet" / "checkpoint.pt", weights_only=True, map_location="cpu")
    assert state["step"] == 2


@pytest.mark.parametrize("stage", STEPS)
def test_every_stage_writes_a_whole_run(base, stage):
    folder = base / "out" / stage
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert state["step"] == STEPS[stage]
    (line,) = (folder / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == STEPS[stage] and np.isfinite(json.loads(line)["loss"])
    for module in state["modules"].values():
        assert all(value.isfinite().all() for value in module.values())
    if stage in ("vae", "unet", "decoder"):
        (picture,) = (folder / "samples").glob("*.png")
        assert Image.open(picture).width % 256 == 0


def test_a_finished_stage_is_not_trained_again(base):
    path = base / "out" / "clip" / "checkpoint.pt"
    before = torch.load(path, weights_only=True)["modules"]["clip"]
    main(["clip", *arguments(base), "--steps", str(STEPS["clip"])])
    after = torch.load(path, weights_only=True)["modules"]["clip"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_clip_pair_lies_there_with_its_tokenizer_once_it_is_trained(base, tmp_path):
    main(["clip", *arguments(base)[:-1], str(tmp_path), "--steps", "1"])
    clip = ClipSimilarity(tmp_path / "clip" / "model", base="nowhere")
    assert clip.texts(["Gus is in the kitchen."]).isfinite().all()


def test_the_painter_learns_from_the_town_alone(base):
    (cache,) = (base / "out" / "cache").glob("*.safetensors")
    latents = load_file(cache)["latents"]
    assert len(latents) == len(FlintstonesRelease(base / "town").splits["train"])
    assert 0.5 < float(latents.float().std()) < 2  # scaled to unit deviation


def test_the_text_encoder_learns_along_but_not_the_names(base):
    state = torch.load(base / "out" / "unet" / "checkpoint.pt", weights_only=True)["modules"]["text_encoder"]
    first = text_encoder_of(CLIPModel.from_pretrained(base / "out" / "clip" / "model")).state_dict()
    changed = {name for name in first if not torch.equal(first[name], state[name])}
    assert any("self_attn" in name for name in changed) and any("token_embedding" in name for name in changed)
    (table,) = (name for name in first if "token_embedding" in name)
    tokenizer = CLIPTokenizer.from_pretrained(base / "out" / "tokenizer")
    town = FlintstonesRelease(base / "town")
    seen = set(sum(tokenizer([town.clip(id).caption for id in town.splits["train"]] + [""]).input_ids, []))
    unseen = [i for i in range(len(tokenizer)) if i not in seen]
    assert torch.equal(first[table][unseen], state[table][unseen])


def test_the_decoder_is_tuned_alone_and_exported(base):
    before = AutoencoderDC.from_pretrained(base / "out" / "vae" / "model").state_dict()
    after = AutoencoderDC.from_pretrained(base / "out" / "model" / "vae", torch_dtype=torch.float16).state_dict()
    changed = {name for name in before if not torch.equal(before[name].half(), after[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    tuned = torch.load(base / "out" / "decoder" / "checkpoint.pt", weights_only=True)["modules"]["decoder"]
    assert all(torch.equal(value.half(), after[f"decoder.{name}"]) for name, value in tuned.items())


def test_the_export_opens_with_stock_classes(base):
    model = base / "out" / "model"
    vae = AutoencoderDC.from_pretrained(model / "vae", torch_dtype=torch.float16)
    unet = UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float16)
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float16)
    captioner = GPT2LMHeadModel.from_pretrained(model / "captioner", dtype=torch.float16)
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    captioner_tokenizer = GPT2Tokenizer.from_pretrained(model / "captioner_tokenizer")
    scheduler = DPMSolverMultistepScheduler.from_pretrained(model / "scheduler")
    assert unet.config.cross_attention_dim == text_encoder.config.hidden_size
    assert unet.config.in_channels == vae.config.latent_channels and vae.config.scaling_factor != 1
    assert captioner.config.vocab_size == len(captioner_tokenizer)
    assert all(len(captioner_tokenizer(token).input_ids) == 1 for token in SPECIAL_TOKENS)
    assert scheduler.config.prediction_type == "v_prediction" and scheduler.config.timestep_spacing == "trailing"
    assert tokenizer.model_max_length == MAX_TOKENS
    averaged = torch.load(base / "out" / "unet" / "checkpoint.pt", weights_only=True)["extra"]["ema"]["shadow_params"]
    for parameter, average in zip([*unet.parameters(), *text_encoder.parameters()], averaged, strict=True):
        assert torch.equal(parameter, average.half())


def test_a_stage_goes_on_from_a_model(base, tmp_path):
    model = base / "out" / "model"
    command = [*arguments(base)[:-1], str(tmp_path), "--init", str(model)]
    main(["unet", *command, "--steps", "1", "--batch_size", "2", "--learning_rate", "0"])
    state = torch.load(tmp_path / "unet" / "checkpoint.pt", weights_only=True)
    for name in ("unet", "text_encoder"):
        (file,) = (model / name).glob("*.safetensors")
        first, after = load_file(file), state["modules"][name]
        assert first.keys() == after.keys()
        assert all(torch.equal(value.float(), after[name]) for name, value in first.items())
    assert (tmp_path / "tokenizer" / "tokenizer.json").exists()
    main(["export", *command])
    (before,), (after,) = ((folder / "vae").glob("*.safetensors") for folder in (model, tmp_path / "model"))
    assert before.read_bytes() == after.read_bytes()


def test_a_model_goes_on_with_more_latents(base, tmp_path):
    model = tmp_path / "narrow"
    shutil.copytree(base / "out" / "model", model)
    torch.manual_seed(0)
    narrow = AutoencoderDC(**{**VAE_CONFIG, "latent_channels": 16}, scaling_factor=0.5)
    narrow.save_pretrained(model / "vae")
    new_unet(narrow).save_pretrained(model / "unet")
    command = [*arguments(base)[:-1], str(tmp_path / "out"), "--init", str(model)]
    main(["vae", *command, "--steps", "1"])
    main(["unet", *command, "--steps", "1", "--batch_size", "2", "--learning_rate", "0"])
    vae = AutoencoderDC.from_pretrained(tmp_path / "out" / "vae" / "model").eval()
    assert vae.config.latent_channels == 32 and vae.config.scaling_factor == 0.5
    with torch.no_grad():
        pictures = torch.rand(1, 3, 64, 64)
        known, after = narrow.eval().encode(pictures).latent, vae.encode(pictures).latent[:, :16]
    assert 0 < (after - known).square().mean() < 0.01 * known.square().mean()
    state = torch.load(tmp_path / "out" / "unet" / "checkpoint.pt", weights_only=True)["modules"]["unet"]
    first = UNet2DConditionModel.from_pretrained(model / "unet").state_dict()["conv_in.weight"]
    assert torch.equal(state["conv_in.weight"][:, :16], first) and not state["conv_in.weight"][:, 16:].any()
    (cache,) = (tmp_path / "out" / "cache").glob("*.safetensors")
    assert load_file(cache)["latents"].shape[2:] == (32, 16, 16)


def test_velocity_losses_of_a_model_that_predicts_nothing(base, tmp_path, capsys):
    """Of a UNet whose last layer is zero the loss is the velocity's own mean square."""
    model, silent = base / "out" / "model", tmp_path / "silent"
    shutil.copytree(model, silent)
    (file,) = (silent / "unet").glob("*.safetensors")
    save_file({k: v * (not k.startswith("conv_out")) for k, v in load_file(file).items()}, file, {"format": "pt"})
    data = base / "town"
    velocity([str(model), str(silent), "--data", str(data), "--num_frames", "3", "--json", str(tmp_path / "v.json")])
    report = json.loads((tmp_path / "v.json").read_text())
    own, zero = (row["losses"] for row in report["rows"])
    assert own != zero and len(own) == len(report["timesteps"]) and np.isfinite(own).all()

    release = FlintstonesRelease(data)
    test = release.splits["test"]
    pictures = np.stack([release.frame(test[i * len(test) // 3], 2) for i in range(3)])
    vae = AutoencoderDC.from_pretrained(model / "vae", torch_dtype=torch.float32).eval()
    with torch.no_grad():
        latents = vae.encode(to_tensor(pictures)).latent * vae.config.scaling_factor
    scheduler = DDPMScheduler.from_pretrained(model / "scheduler")
    for timestep, loss in zip(report["timesteps"], zero, strict=True):
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(timestep))
        wanted = scheduler.get_velocity(latents, noise, torch.full((3,), timestep)).square().mean()
        assert loss == pytest.approx(float(wanted), rel=1e-4)
    assert str(silent) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        velocity([str(model), "--data", str(data), "--num_frames", "99"])
