"""A StoryGAN-style model (Li et al. 2019): recurrent context encoder, image discriminator and story discriminator.

    python -m train.baselines.storygan --data DATA/gulch --out runs/storygan
    python -m train.evaluate --data DATA/gulch --judge runs/judge --baselines storygan --storygan runs/storygan

As there: the whole story is encoded into h_0, a GRU takes the captions one by one, a filter made of its state turns
each into a gist ("Text2Gist"), and a convolutional generator paints that. Small, at 64 px, with hinge losses, spectral
norms and a moving average of the generator instead of the original's recipe.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from train.data.flintstones import FlintstonesRelease
from train.evaluation.painting import Painter, story_generator
from train.evaluation.stories import TestStories
from train.loop import Run
from train.painter import picture_grid, to_pictures


SIZE = 64
NUM_FRAMES = 4
WORDS, STATE, NOISE, GIST = 128, 128, 32, 16


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


class Captions(nn.Module):
    """Captions as the mean of their words' vectors: list of B strings to (B, 128). Unknown words share one."""

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__()
        self.index = {word: i for i, word in enumerate(vocabulary)}
        self.bag = nn.EmbeddingBag(len(vocabulary) + 1, WORDS, mode="mean")

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return self.bag(ids, offsets)

    def tokens(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Word numbers of all captions one after the other, and where each begins."""
        rows = [
            [self.index[word] for word in words_of(c) if word in self.index] or [len(self.index)] for c in captions
        ]
        offsets = np.cumsum([0, *map(len, rows[:-1])])
        return torch.tensor(sum(rows, [])), torch.from_numpy(offsets)


class Generator(nn.Module):
    """Stories of captions to stories of pictures.

    Args:
        vocabulary (`Sequence[str]`): the words that it knows.
        width (`int`): channels at full size.
    """

    def __init__(self, vocabulary: Sequence[str], width: int = 32):
        super().__init__()
        self.captions = Captions(vocabulary)
        self.story = nn.Linear(WORDS, 2 * STATE)
        self.context = nn.GRUCell(WORDS + NOISE, STATE)
        self.inputs = nn.Linear(WORDS + NOISE, GIST * GIST)
        self.filter = nn.Linear(STATE, GIST * GIST)
        wide = 8 * width
        self.first = nn.Linear(GIST * GIST + STATE + WORDS, wide * 16)
        channels = [wide, 4 * width, 4 * width, 2 * width, width]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(8, b), nn.SiLU())
            for a, b in zip(channels, channels[1:])
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, captions: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Paint.

        Args:
            captions (`torch.Tensor`): encoded, (B, F, 128).
            noise (`torch.Tensor`): standard normal, (B, F + 1, 128); one row is the story's, the others the frames'.

        Returns:
            pictures (B, F, 3, 64, 64) in [-1, 1], and the KL divergence of h_0 from a standard normal, a scalar.
        """
        mean, spread = self.story(captions.mean(dim=1)).chunk(2, dim=-1)  # [B, STATE] each
        spread = spread.clamp(-6, 6)
        state = mean + (0.5 * spread).exp() * noise[:, 0, :STATE]
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).mean()
        features = []
        for frame in range(captions.shape[1]):
            told = torch.cat([captions[:, frame], noise[:, frame + 1, :NOISE]], dim=-1)
            state = self.context(told, state)
            signal = self.inputs(told).unflatten(-1, (GIST, GIST))
            kernel = self.filter(state).unflatten(-1, (GIST, GIST)) / math.sqrt(GIST)
            gist = (signal @ kernel).flatten(1)
            features.append(torch.cat([gist, state, captions[:, frame]], dim=-1))
        x = self.first(torch.stack(features, dim=1).flatten(0, 1)).unflatten(-1, (-1, 4, 4))
        for block in self.blocks:
            x = block(F.interpolate(x, scale_factor=2))
        return torch.tanh(self.last(x)).unflatten(0, captions.shape[:2]), divergence


class Discriminators(nn.Module):
    """Whether a picture goes with its caption, and whether a story's pictures go with its captions together.

    Args:
        width (`int`): channels of the first convolution.
    """

    def __init__(self, vocabulary: Sequence[str], width: int = 32):
        super().__init__()
        self.captions = Captions(vocabulary)
        layers: list[nn.Module] = []
        for a, b in zip([3, width, 2 * width, 4 * width], [width, 2 * width, 4 * width, 8 * width]):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.eyes = nn.Sequential(*layers)
        self.look = spectral_norm(nn.Linear(8 * width * 16, STATE))
        self.alone = spectral_norm(nn.Linear(STATE, 1))
        self.caption = spectral_norm(nn.Linear(WORDS, STATE))
        self.story = spectral_norm(nn.Linear(STATE, STATE))

    def forward(
        self, pictures: torch.Tensor, ids: torch.Tensor, offsets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of every frame (B, F) and of every story (B,); larger is more real. Pictures are (B, F, 3, H, W)."""
        told = self.captions(ids, offsets).unflatten(0, pictures.shape[:2])  # [B, F, WORDS]
        seen = F.leaky_relu(self.look(self.eyes(pictures.flatten(0, 1)).flatten(1)), 0.2)
        seen = seen.unflatten(0, pictures.shape[:2])  # [B, F, STATE]
        frames = self.alone(seen)[..., 0] + (seen * self.caption(told)).mean(dim=-1)
        # as in StoryGAN: the story's features and its captions' meet element by element
        stories = (self.story(seen).mean(dim=1) * self.caption(told).mean(dim=1)).sum(dim=-1)
        return frames, stories


def frames_of(release: FlintstonesRelease, ids: Sequence[str], draw: torch.Generator) -> torch.Tensor:
    """A random frame of each clip at 64 px: float32 (N, 3, 64, 64) in [-1, 1]."""
    frames = [release.frame(id, lambda n: int(torch.randint(n, (1,), generator=draw))) for id in ids]
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    side = min(x.shape[-2:])
    return F.interpolate(x, (SIZE, SIZE), mode="area" if side >= SIZE else "nearest")


class StoryGAN:
    """The trained generator.

    Args:
        generator (`Generator`): its vocabulary is that of its captions.
    """

    def __init__(self, generator: Generator):
        self.generator = generator.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: str | Path) -> StoryGAN:
        """Open a folder that `main` wrote.

        Raises:
            ValueError: there is none.
        """
        folder = Path(folder)
        if not (folder / "storygan.safetensors").is_file() or not (folder / "config.json").is_file():
            raise ValueError(f"`folder` {folder} holds no StoryGAN; train one: python -m train.baselines.storygan.")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        generator = Generator(config["vocabulary"], config["width"])
        generator.load_state_dict(load_file(folder / "storygan.safetensors"))
        return cls(generator)

    def save(self, folder: Path, facts: dict[str, object]) -> None:
        """Write weights and what made them."""
        vocabulary = list(self.generator.captions.index)
        width = self.generator.last.in_channels
        save_file(self.generator.state_dict(), folder / "storygan.safetensors")
        text = json.dumps({"width": width, **facts, "vocabulary": vocabulary}, indent=1, ensure_ascii=False)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")

    @torch.inference_mode()
    def paint(self, captions: Sequence[str], noise: torch.Generator) -> np.ndarray:
        """The frames of one story: uint8 (F, 64, 64, 3)."""
        told = self.generator.captions(*self.generator.captions.tokens(captions))[None]
        drawn = torch.randn((1, len(captions) + 1, STATE), generator=noise)
        return to_pictures(self.generator(told, drawn)[0][0])

    def painter(self, stories: TestStories, seed: int) -> Painter:
        """For a row of an evaluation."""
        return lambda rows: [self.paint(stories.captions[i], story_generator(seed, i)) for i in rows]


def train(
    release: FlintstonesRelease, out: Path, steps: int, batch_size: int, seed: int, max_seconds: float, width: int = 16
) -> StoryGAN:
    """Train on the release's training stories, resuming what `out` holds.

    Raises:
        ValueError: the release has no story of four frames to learn from.
    """
    stories = release.stories("train", NUM_FRAMES)
    if not stories:
        raise ValueError(f"{release.root} holds no training story of {NUM_FRAMES} clips.")
    captions = {id: release.clip(id).caption for id in release.splits["train"]}
    vocabulary = sorted({word for text in captions.values() for word in words_of(text)})
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():  # the first weights come from the global RNG
        torch.manual_seed(seed)
        generator, judges = Generator(vocabulary, width), Discriminators(vocabulary, width)
    parameters = list(generator.parameters())
    ema = EMAModel(parameters, decay=0.999)
    optimizer = torch.optim.Adam(
        [{"params": parameters, "lr": 2e-4}, {"params": list(judges.parameters()), "lr": 4e-4}], betas=(0.0, 0.99)
    )
    run = Run(
        out,
        {"generator": generator, "judges": judges},
        optimizer,
        steps,
        draw,
        warmup=1,
        schedule="constant",
        extra_state={"ema": ema},
        clip=[parameters, list(judges.parameters())],
        max_grad_norm=10.0,
    )
    held = release.stories("val", NUM_FRAMES)[:4] or stories[:4]

    def loss_of_step(step: int) -> dict[str, torch.Tensor]:
        chosen = torch.randint(len(stories), (batch_size,), generator=draw).tolist()
        ids = [id for story in chosen for id in stories[story]]
        tokens = generator.captions.tokens([captions[id] for id in ids])
        real = frames_of(release, ids, draw).unflatten(0, (batch_size, NUM_FRAMES))
        noise = torch.randn((batch_size, NUM_FRAMES + 1, STATE), generator=draw)
        # real pictures under another story's captions are wrong as well
        mixed = generator.captions.tokens([captions[id] for id in ids[NUM_FRAMES:] + ids[:NUM_FRAMES]])
        with torch.autocast("cpu", torch.bfloat16):
            return losses(real, tokens, mixed, noise)

    def losses(real: torch.Tensor, tokens: tuple, mixed: tuple, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        told = generator.captions(*tokens).unflatten(0, real.shape[:2])
        fake, divergence = generator(told, noise)
        right, painted, other = judges(real, *tokens), judges(fake.detach(), *tokens), judges(real, *mixed)
        judging = sum(
            F.relu(1 - a.float()).mean() + 0.5 * (F.relu(1 + b.float()).mean() + F.relu(1 + c.float()).mean())
            for a, b, c in zip(right, painted, other, strict=True)
        )
        # the same judges with nothing to learn from this: one backward pass serves both sides
        fixed = {name: value.detach() for name, value in judges.named_parameters()}
        frames, whole = functional_call(judges, fixed, (fake, *tokens))
        painting = -frames.float().mean() - whole.float().mean()
        return {"loss": judging + painting + 0.1 * divergence, "judging": judging, "painting": painting}

    @torch.no_grad()
    def sample(step: int) -> None:
        ema.store(parameters)
        ema.copy_to(parameters)
        told = generator.captions(*generator.captions.tokens([release.clip(id).caption for s in held for id in s]))
        noise = torch.randn((len(held), NUM_FRAMES + 1, STATE), generator=torch.Generator().manual_seed(seed))
        pictures = to_pictures(generator(told.unflatten(0, (len(held), NUM_FRAMES)), noise)[0].flatten(0, 1))
        ema.restore(parameters)
        picture_grid(pictures, columns=NUM_FRAMES).save(out / "samples" / f"{step:06d}.png")

    run.train(loss_of_step, sample, lambda: ema.step(parameters), description="storygan", max_seconds=max_seconds)
    ema.copy_to(parameters)
    return StoryGAN(generator)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--out", type=Path, default=Path("runs/storygan"), help="checkpoint, log, samples and weights")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=8, help="stories a step")
    parser.add_argument("--width", type=int, default=16, help="channels at full size")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (resumable) after so long")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if min(args.steps, args.batch_size) < 1 or args.width < 8 or args.width % 8:
        parser.error("--steps and --batch_size must be at least 1, --width a multiple of 8")
    release = FlintstonesRelease(args.data)
    model = train(release, args.out, args.steps, args.batch_size, args.seed, 60 * args.minutes, args.width)
    step = torch.load(args.out / "checkpoint.pt", weights_only=True)["step"]
    model.save(args.out, {"step": step, "batch_size": args.batch_size, "seed": args.seed, "data": args.data.name})
    print(f"{args.out}: step {step} of {args.steps}")


if __name__ == "__main__":
    main()
