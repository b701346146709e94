"""What a model's stories are worth, on test stories that nothing was trained on.

    python -m train.evaluate --data DATA/gulch --judge runs/judge --out evaluation
    python -m train.evaluate --data DATA/gulch --judge runs/judge --out evaluation --sweep alpha 0 10 24 32 40
    python -m train.evaluate --compare evaluation/embedded.json runs/other/embedded.json

Stories of the test split are painted from their captions, and a judge says who and where it sees; its score on the
real frames of the same stories is the ceiling. `--baselines` are further rows of the same table. Captions are sampled
after prefixes of test stories and set beside the real next ones. `--sweep` tries values of one setting on the
validation split. A report is one JSON file in `--out` with a page of the pictures behind it; `README.md` there shows
all of them.

Painted frames are kept in `--work`: an interrupted command goes on when it is given again. `accelerate launch` splits
the painting over processes (`--work` must be a folder that all of them see); the figures stay the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from sagan_pipeline import SAGANetsPipeline, fastest_dtype
from sagan_pipeline.loading import EMBEDDED, EMBEDDED_ADAPTER
from train.baselines.storygan import StoryGAN
from train.captioner import StoryCaptions
from train.data.flintstones import FlintstonesRelease
from train.evaluation.captions import PROMPTING, evaluate_captions, perplexity_figures
from train.evaluation.painting import (
    NearestFrames,
    Painted,
    Painter,
    at_size_of,
    continuation_painter,
    fingerprint,
    generated_captions,
    key_of,
    paint_row,
    pipeline_painter,
    reconstructing_painter,
    shuffled,
)
from train.evaluation.report import (
    as_markdown,
    compare,
    plot_captions,
    plot_sweep,
    provenance,
    rounded,
    write_json,
    write_page,
    write_readme,
)
from train.evaluation.scoring import Halves, Seen, Whole, figures_of_row, look
from train.evaluation.stories import MODES, PROTOCOLS, TestStories, test_stories
from train.metrics.clip import Scorer
from train.metrics.inception import FidFeatures, InceptionV3, PublishedJudge
from train.metrics.judge import Judge
from train.study import adapters_of


SCHEDULERS = {"dpmsolver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
ARGUMENTS = {"alpha": "lora_alpha", "steps": "num_inference_steps", "guidance": "guidance_scale"}
OF_CAPTIONS = ("prompting", "temperature")  # sweeps that paint nothing
SWEEPS = (*ARGUMENTS, "epochs", "data_size", "adapters", *OF_CAPTIONS)
BASELINES = {
    "base": "the base without its adapter (alpha 0)",
    "paper": "the adapter of --paper_lora: LoRA per frame by the paper's recipe",
    "storygan": "the StoryGAN-style model of --storygan: recurrent context, image and story discriminators, 64 px",
    "continuation": "StoryDALL-E's setting: the first real frame is given, and later ones start as it, under noise",
    "reconstructed": "the real frames through the model's autoencoder and back: the most that its painter can reach",
    "nearest": "for each caption the real training frame whose caption is the most alike (TF-IDF): the looks' ceiling",
    "shuffled": "the model's own frames under other stories' captions: what pictures get that do not follow the text",
}
KEYS = ("char_f1_micro", "char_f1_macro", "frame_acc", "frame_acc_2_and_3", "bg_acc", "fjd", "fid", "clip_t", "clip_i")


@dataclass
class Row:
    """A row of the table: how its stories are had for one seed's stories, and what is said about it."""

    name: str
    words: str
    pictures: Callable[[TestStories, int], Callable[[int], np.ndarray]]
    facts: dict[str, object]
    copies: bool = False  # its frames are meant to be the real ones, pixel by pixel


class Instrument:
    """Everything that stays while row after row is painted and scored.

    Args:
        args (`argparse.Namespace`): as `main` parses them.
    """

    def __init__(self, args: argparse.Namespace):
        self.args, self.accelerator = (
            args,
            Accelerator(
                cpu=not torch.cuda.is_available(),
                kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=2))],  # the others wait for who scores
            ),
        )
        self.release = FlintstonesRelease(args.data)
        self.judge = open_judge(args, self.release)
        self.inception = FidFeatures(args.inception) if args.inception else None
        if self.judge.classes != self.release.cast:
            raise ValueError(
                f"--judge knows {', '.join(self.judge.classes)}, but --data shows {', '.join(self.release.cast)}"
            )
        self.scorer = Scorer.load(args.scorer) if args.scorer else None
        if args.model == "embedded":
            self.model = fingerprint(EMBEDDED)
        else:
            self.model = fingerprint(Path(args.model)) if Path(args.model).is_dir() else args.model
        self.opened: tuple[Path | None, SAGANetsPipeline] | None = None
        split = args.split or ("val" if args.sweep else "test")
        self.stories = test_stories(
            self.release,
            self.judge.classes,
            split,
            args.num_frames,
            args.mode,
            args.num_stories,
            0,  # the same stories and real frames whatever the seeds of the painting
            args.shuffled_stories,
            args.resolution,
        )
        self.split = split
        self.told: dict[int, TestStories] = {}

    def pipe(self, lora: Path | None = None) -> SAGANetsPipeline:
        """The model under an adapter file; its own for `None`. One is held at a time."""
        if self.opened is None or self.opened[0] != lora:
            self.opened = None
            if self.args.model == "embedded":
                pipe = SAGANetsPipeline.from_embedded(fastest_dtype())
            else:
                dtype = torch.float16 if torch.cuda.is_available() else torch.float32
                pipe = SAGANetsPipeline.from_pretrained(self.args.model, dtype=dtype)
            if lora is not None:
                pipe.load_adapter(lora)
            if self.args.scheduler is not None:
                pipe.scheduler = SCHEDULERS[self.args.scheduler].from_config(pipe.scheduler.config)
            pipe.set_progress_bar_config(disable=True)
            self.opened = lora, pipe.to(self.accelerator.device)
        return self.opened[1]

    def stories_of(self, seed: int) -> TestStories:
        """The stories that are painted with a seed: the same, unless their captions are sampled."""
        if self.args.captions == "original":
            return self.stories
        if seed not in self.told:
            facts = {**self._facts(None), "seed": seed, "ids": self.stories.ids}
            folder = self.args.work / key_of("stories", facts)
            pipe = self.pipe(self.args.lora)
            told = generated_captions(pipe, self.stories, seed, folder, self.accelerator)
            self.told[seed] = self.stories.with_captions(told)
        return self.told[seed]

    def adapter(self, lora: Path | None) -> Path | None:
        """The adapter file that is painted with; none for a model of its own folder, which has it inside."""
        return EMBEDDED_ADAPTER if lora is None and self.args.model == "embedded" else lora

    def _facts(self, lora: Path | None) -> dict[str, object]:
        adapter = self.adapter(lora)
        return {
            "model": self.model,
            "lora": fingerprint(adapter) if adapter else None,
            "scheduler": self.args.scheduler,
            "dtype": str(fastest_dtype()) if self.args.model == "embedded" else str(self.accelerator.device.type),
        }

    def painted_by(self, name: str, model: StoryGAN, folder: Path) -> Callable[[TestStories, int], Painted]:
        """A row of another model's frames."""

        def pictures(stories: TestStories, seed: int) -> Painted:
            facts = {
                "weights": fingerprint(folder / "storygan.safetensors"),
                "seed": seed,
                "captions": stories.captions,
            }
            key = f"{key_of(name, facts)}-seed{seed}"
            painter = model.painter(stories, seed)
            return paint_row(self.args.work, key, stories, painter, self.accelerator, f"{name}, seed {seed}")

        return pictures

    def painted(
        self, name: str, lora: Path | None, by: Callable[..., Painter] = pipeline_painter, **arguments: object
    ) -> Callable[[TestStories, int], Painted]:
        """A row of this model's own frames."""

        def pictures(stories: TestStories, seed: int) -> Painted:
            facts = {
                **self._facts(lora),
                **arguments,
                "seed": seed,
                "ids": stories.ids,
                "captions": stories.captions,
                "scored": stories.scored,
            }
            key = f"{key_of(name, facts)}-seed{seed}"
            painter = by(self.pipe(lora), stories, seed, **arguments)
            return paint_row(self.args.work, key, stories, painter, self.accelerator, f"{name}, seed {seed}")

        return pictures

    def rows(self) -> list[Row]:
        """The model first, then what was asked for."""
        args = self.args
        own = {"lora": args.lora.name if args.lora else None, "lora_alpha": args.alpha}
        model = self.painted("model", args.lora, lora_alpha=args.alpha)
        rows = [Row("model", "", model, own)]
        for name in args.baselines:
            words = BASELINES[name]
            if name == "base":
                rows.append(Row(name, words, self.painted(name, args.lora, lora_alpha=0.0), {"lora_alpha": 0.0}))
            elif name == "paper":
                facts = {"lora": args.paper_lora.name}
                rows.append(Row(name, words, self.painted(name, args.paper_lora), facts))
            elif name == "storygan":
                rows.append(Row(name, words, self.painted_by(name, StoryGAN.load(args.storygan), args.storygan), {}))
            elif name == "continuation":
                painted = self.painted(name, args.lora, continuation_painter, lora_alpha=args.alpha)
                rows.append(Row(name, words, painted, own))
            elif name == "reconstructed":
                again = self.painted(name, args.lora, reconstructing_painter)  # the same under every seed
                rows.append(Row(name, words, lambda stories, seed: again(stories, args.seeds[0]), {}, copies=True))
            elif name == "nearest":
                rows.append(Row(name, words, lambda stories, seed: NearestFrames(stories), {}))
            elif name == "shuffled":
                rows.append(
                    Row(name, words, lambda stories, seed: shuffled(model(stories, seed), len(stories), seed), {})
                )
        return rows

    def swept(self) -> list[Row]:
        """A row for each value of the sweep."""
        name, values = self.args.sweep
        rows = []
        for value in values:
            if name in ARGUMENTS:
                given = {"lora_alpha": self.args.alpha, ARGUMENTS[name]: value}
                pictures = self.painted(f"{name}-{value:g}", self.args.lora, **given)
                rows.append(Row(f"{name} {value:g}", "", pictures, {"value": value}))
            else:
                x, path = value
                title = x if name == "adapters" else f"{name} {x:g}"
                pictures = self.painted(title.replace(" ", "-"), path, lora_alpha=self.args.alpha)
                rows.append(Row(title, "", pictures, {"value": x, "lora": path.name}))
        return rows

    def look(self, stories: TestStories, pictures: Callable[[int], np.ndarray], copies: bool = False) -> Seen:
        def originals(story: int) -> np.ndarray:
            return np.stack([np.asarray(p) for p in at_size_of(self.pipe(self.args.lora), stories.real(story))])

        return look(self.judge, stories, pictures, self.scorer, self.inception, originals if copies else None)

    def evaluate(self, rows: list[Row]) -> tuple[list[dict], list[tuple[str, Callable, Seen]], dict[str, object]]:
        """Paint and score every row.

        Returns:
            figures, real frames first; name, pictures and what was seen of each row, under the first seed; and what is
            said of the whole.
        """
        seeds = self.args.seeds
        painted = {row.name: {seed: row.pictures(self.stories_of(seed), seed) for seed in seeds} for row in rows}
        if not self.accelerator.is_main_process:
            return [], [], {}
        classes = self.judge.classes
        seen_real = {seed: self.look(self.stories_of(seed), self.stories.real) for seed in seeds[: self._real_seeds()]}
        first = seen_real[seeds[0]]
        halves: dict[str, Halves | Whole] = {"fjd": Halves(self.stories, first.features)}
        if first.inception is not None:
            halves["fid"] = Whole(self.stories, first.inception)
        real = figures_of_row(list(seen_real.values()), {}, classes, seeds[0])
        real["fjd"] = halves["fjd"].floor()
        real["intervals"]["fjd"] = halves["fjd"].interval(halves["fjd"].floor, seeds[0])
        found: list[dict] = [{"name": "real", "words": "the real frames of the same stories", **real}]
        shown = []
        for row in rows:
            seen = [self.look(self.stories_of(seed), painted[row.name][seed], row.copies) for seed in seeds]
            figures = figures_of_row(seen, halves, classes, seeds[0])
            figures["fjd_to_floor"] = figures["fjd"] / real["fjd"] if real["fjd"] else None
            times = [p.seconds_a_frame for p in painted[row.name].values() if isinstance(p, Painted)]
            seconds = {"seconds_a_frame": float(np.mean(times))} if times else {}
            found.append({"name": row.name, "words": row.words, **row.facts, **figures, **seconds})
            shown.append((row.name, painted[row.name][seeds[0]], seen[0]))
        facts = {
            "fjd_frames": halves["fjd"].count,
            "fid_frames": halves["fid"].count if "fid" in halves else None,
            "caption_agreement": self.stories.caption_agreement() if self.args.captions == "generated" else None,
        }
        return found, shown, facts

    def _real_seeds(self) -> int:
        """Original captions ask the same of the real frames under every seed."""
        return len(self.args.seeds) if self.args.captions == "generated" else 1

    @cached_property
    def perplexities(self) -> dict[str, dict]:
        """The same however captions are sampled."""
        pipe = self.pipe(self.args.lora)
        stories = StoryCaptions(self.release, self.split)
        return perplexity_figures(pipe.captioner, pipe.captioner_tokenizer, stories, self.args.seeds[0])

    def captions(self, **way: str | float) -> dict[str, object]:
        sampled = evaluate_captions(
            self.pipe(self.args.lora),
            self.release,
            self.split,
            self.args.sampled_captions,
            self.args.seeds[0],
            self.args.work,
            self.accelerator,
            self.model,
            **way,
        )
        return {**sampled, **self.perplexities}

    def head(self, argv: list[str] | None) -> dict[str, object]:
        """What made the report."""
        args = self.args
        pipe, adapter = self.pipe(args.lora), self.adapter(args.lora)
        defaults = ("default_num_inference_steps", "default_guidance_scale", "default_temperature")
        few = args.num_stories if args.num_stories and args.num_stories > len(self.stories) else None
        return {
            **provenance(args, argv),
            "seeds": args.seeds,
            "protocol": args.protocol,
            "mode": args.mode,
            "num_frames": args.num_frames,
            "num_stories": len(self.stories),
            "stories_asked": few,
            "stories": key_of("", {"ids": self.stories.ids}).lstrip("-"),
            "resolution": args.resolution,
            "captions_from": args.captions,
            "split": self.split,
            "dataset": args.data.resolve().name,
            "judge": fingerprint(*[path for path in (args.judge, args.place_judge) if path]),
            "inception": fingerprint(args.inception) if args.inception else None,
            "scorer": fingerprint(args.scorer) if args.scorer else None,
            "model": {
                "name": Path(args.model).name,
                "weights": self.model,
                "lora": adapter.name if adapter else None,
                "lora_weights": fingerprint(adapter) if adapter else None,
                "lora_alpha": pipe.default_lora_alpha if args.alpha is None else args.alpha,
                "scheduler": type(pipe.scheduler).__name__,
                **{name: pipe.config.get(name) for name in defaults},
            },
        }


def open_judge(args: argparse.Namespace, release: FlintstonesRelease) -> Judge | PublishedJudge:
    """A judge of our own from a folder, or the published classifiers from their files."""
    if not args.judge.is_file():
        return Judge.load(args.judge)
    places, settings = None, ()
    if args.place_judge is not None:
        places = InceptionV3.load(args.place_judge)
        settings = args.place_names.read_text(encoding="utf-8").splitlines()
    return PublishedJudge(InceptionV3.load(args.judge), release.cast, places, settings)


def sweep_values(name: str, values: list[str]) -> list:
    """The values of a sweep: numbers; for `epochs` and `data_size` pairs of number and adapter file, from the folders
    of runs; for `adapters` pairs of name and file, from files or the folders of runs; for `prompting` names.

    Raises:
        ValueError: a value is none of the sweep's.
    """
    if name in ARGUMENTS or name == "temperature":
        kind = int if name == "steps" else float
        try:
            numbers = [kind(value) for value in values]
        except ValueError:
            raise ValueError(f"--sweep {name} takes numbers, but was given {' '.join(values)}.") from None
        if name == "temperature" and not all(0 <= number <= 10 for number in numbers):
            raise ValueError(f"--sweep temperature takes 0 to 10, but was given {' '.join(values)}.")
        return numbers
    if name == "prompting":
        unknown = [value for value in values if value not in PROMPTING]
        if unknown:
            raise ValueError(f"--sweep prompting knows {', '.join(PROMPTING)}, but was given {', '.join(unknown)}.")
        return values
    if name == "adapters":
        paths = [Path(value) for value in values]
        files = [(path.stem, path) if path.is_file() else (path.name, adapters_of(path)[0]) for path in paths]
        if len(dict(files)) < len(files):
            raise ValueError(f"--sweep adapters: two of {', '.join(values)} have the same name.")
        return files
    found: list[tuple[float, Path]] = []
    for value in values:
        run = Path(value)
        adapter, epochs = adapters_of(run)
        if name == "epochs":
            found += [(int(path.parent.name), path) for path in epochs]
        else:
            found.append((stories_learnt_from(run), adapter))
    if not found:
        raise ValueError(f"--sweep {name}: {', '.join(values)} hold no adapter of an epoch (--epoch_adapters).")
    return sorted(found, key=lambda pair: pair[0])


def stories_learnt_from(run: Path) -> float:
    """How many training stories a run of `train.saganets` had: those of the release that it was given.

    Raises:
        ValueError: its release is gone.
    """
    data = json.loads((run / "config.json").read_text())["config"]["data"]
    try:
        release = FlintstonesRelease(data, pictures=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{run}: the release that it learnt from cannot be read ({error}).") from None
    return float(len(release.stories("train", 4)))


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="release of the show, in FlintstonesSV's layout")
    parser.add_argument("--judge", type=Path, help="folder of a judge, or a published classifier's weights")
    parser.add_argument(
        "--place_judge", type=Path, default=None, help="a published classifier's weights, beside --judge"
    )
    parser.add_argument("--place_names", type=Path, default=None, help="text: its settings in label order, one a line")
    parser.add_argument("--inception", type=Path, default=None, help="weights of pytorch-fid's Inception-v3: FID too")
    parser.add_argument("--scorer", type=Path, default=None, help="folder of a CLIP that is not the model's own")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder of the reports")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluation"), help="folder of the painted frames")
    parser.add_argument("--model", default="embedded", help="a pipeline's folder, or 'embedded'")
    parser.add_argument("--lora", type=Path, default=None, help="adapter file, instead of the model's own")
    parser.add_argument("--alpha", type=float, default=None, help="lora_alpha; default: the model's own")
    parser.add_argument("--scheduler", choices=SCHEDULERS, default=None, help="instead of the model's own")
    parser.add_argument("--name", default=None, help="the report's file name; default: the model's folder, the sweep")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="embedded", help="sets the five flags below")
    parser.add_argument("--mode", choices=MODES, default=None)
    parser.add_argument("--num_frames", type=int, choices=(4, 5), default=None)
    parser.add_argument("--num_stories", type=int, default=None, help="all of the split if it has fewer")
    parser.add_argument("--resolution", type=int, default=None, help="reduce real and painted frames to this side")
    parser.add_argument("--split", choices=("train", "val", "test"), default=None, help="default: test, val to sweep")
    parser.add_argument("--captions", choices=("original", "generated"), default="original")
    parser.add_argument("--sampled_captions", type=int, default=500, help="next captions to sample; 0: none")
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=[], help="further rows")
    parser.add_argument("--paper_lora", type=Path, default=None, help="adapter file of the baseline `paper`")
    parser.add_argument("--storygan", type=Path, default=None, help="folder of train.baselines.storygan")
    parser.add_argument("--sweep", nargs="+", default=None, metavar=("NAME", "VALUE"), help=f"{', '.join(SWEEPS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--page_frames", type=int, default=40, help="frames on the page of pictures; 0: no page")
    parser.add_argument("--compare", type=Path, nargs=2, default=None, metavar=("A.json", "B.json"))
    return parser


def checked(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fill in the protocol's settings; a flag that is given goes before them.

    Raises:
        ValueError: an argument is not acceptable.
    """
    protocol = PROTOCOLS[args.protocol]
    args.shuffled_stories = protocol.shuffled
    for name in ("mode", "num_frames", "num_stories", "resolution"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(protocol, name))
    if args.data is None or args.judge is None:
        raise ValueError("--data and --judge are needed, except for --compare")
    if args.num_stories is not None and args.num_stories < 2:
        raise ValueError(f"--num_stories is {args.num_stories}, but must be at least 2")
    if args.sampled_captions < 0 or args.page_frames < 0:
        raise ValueError("--sampled_captions and --page_frames must not be negative")
    if args.resolution is not None and not 8 <= args.resolution <= 4096:
        raise ValueError(f"--resolution is {args.resolution}, but must be 8 to 4096")
    if len(set(args.seeds)) < len(args.seeds) or min(args.seeds) < 0:
        raise ValueError(f"--seeds are {args.seeds}, but must be different and not negative")
    if (args.place_judge is None) != (args.place_names is None):
        raise ValueError("--place_judge and --place_names go together")
    for name in ("lora", "paper_lora", "place_judge", "place_names", "inception"):
        path = getattr(args, name)
        if path is not None and not path.is_file():
            raise ValueError(f"--{name} {path.name} is no file")
    if "storygan" in args.baselines and args.storygan is None:
        raise ValueError("--baselines storygan needs --storygan")
    if "continuation" in args.baselines and args.mode != "continuation":
        raise ValueError("--baselines continuation needs --mode continuation: else its first frame would be scored")
    if "paper" in args.baselines and args.paper_lora is None:
        raise ValueError("--baselines paper needs --paper_lora")
    if args.sweep is not None:
        name, values = args.sweep[0], args.sweep[1:]
        if name not in SWEEPS or not values:
            raise ValueError(f"--sweep takes one of {', '.join(SWEEPS)} and values, but was given {args.sweep}")
        args.sweep = name, sweep_values(name, values)


def main(argv: list[str] | None = None) -> None:
    parser = arguments()
    args = parser.parse_args(argv)
    if args.compare:
        try:
            reports = [json.loads(path.read_text(encoding="utf-8")) for path in args.compare]
            print(compare(*reports, names=tuple(str(path) for path in args.compare)))
        except (OSError, ValueError) as error:
            parser.error(f"--compare: {error}")
        return
    try:
        checked(parser, args)
        instrument = Instrument(args)
        if instrument.scorer is not None:
            instrument.scorer.refuse_own(instrument.pipe(args.lora).text_encoder)
    except ValueError as error:
        parser.error(str(error))
    name = args.name or "-".join([Path(args.model).name, *(["sweep", args.sweep[0]] if args.sweep else [])])
    main_process = instrument.accelerator.is_main_process
    if main_process:
        args.out.mkdir(parents=True, exist_ok=True)
    report = instrument.head(argv)
    if args.sweep and args.sweep[0] in OF_CAPTIONS:
        way, values = args.sweep
        report["sweep"] = {"name": way, "values": values}
        report["captions_of"] = [instrument.captions(**{way: value}) for value in values]
        if main_process:
            plot_captions(args.out / f"{name}.png", way, report["captions_of"])
    else:
        captions = instrument.captions() if args.sampled_captions and not args.sweep else None
        rows, shown, facts = instrument.evaluate(instrument.swept() if args.sweep else instrument.rows())
        if main_process:
            ours = rows[1]
            if not args.sweep:
                ours["lora_alpha"] = report["model"]["lora_alpha"]
            report |= {
                **{key: ours[key] for key in KEYS if key in ours},
                "fjd_floor": rows[0]["fjd"],
                "judge_ceiling": rows[0]["char_f1_micro"],
                "captions_complete": captions["sampled"]["complete"] if captions else None,
                **facts,
                "rows": rows,
            }
            if args.sweep:
                report["sweep"] = {"name": args.sweep[0], "values": [row["value"] for row in rows[1:]]}
                plot_sweep(args.out / f"{name}.png", args.sweep[0], rows[1:], rows[0])
            if captions:
                report["captions"] = captions
            if args.page_frames and not args.sweep:
                report["page"] = f"{name}.html"
                stories = instrument.stories_of(args.seeds[0])
                write_page(
                    args.out / report["page"], f"{name}, protocol {args.protocol}", stories, shown, args.page_frames
                )
    if main_process:
        write_json(args.out / f"{name}.json", report)
        write_readme(args.out)
        print(as_markdown(name, rounded(report)))
    instrument.accelerator.wait_for_everyone()
    instrument.accelerator.end_training()


if __name__ == "__main__":
    main()
