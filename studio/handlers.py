"""What happens when something on the page is touched: small functions between Gradio and a visitor's `Desk`."""

from __future__ import annotations

import html
import logging
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from sagan_pipeline.checks import checked_caption
from sagan_pipeline.export import export
from sagan_pipeline.story_file import MAX_JSON_BYTES, open_picture, read_png, read_story_json, story_json

from . import painting
from .desk import Desk, story_seed
from .editing import MAX_FRAMES, MAX_SEED, MOST, Board, Settings
from .files import write_file
from .judging import Score, has_judge
from .words import captions_of


logger = logging.getLogger(__name__)

LARGEST_SIDE = 1024  # of a given picture
KEPT_BYTES = 2 * 2**20  # of a story in the browser's storage, which has five
MAX_COLUMNS = 6
Keys = dict[str, Any]


@contextmanager
def refusals(title: str = "That does not work") -> Iterator[None]:
    """What is refused becomes a message; the story stays as it is."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), title=title, print_exception=False) from error


def checked_settings(
    seed: float | None,
    lora_alpha: float | None,
    num_inference_steps: float | None,
    guidance_scale: float | None,
    temperature: float | None,
    adapter: str | None,
    adapters: list[str],
) -> Settings:
    """Raises `ValueError` naming what is wrong, and what is accepted."""
    if adapter not in adapters:
        raise ValueError(f"`adapter` is {str(adapter)[:50]!r}, but must be one of {', '.join(adapters)}.")
    return Settings(
        seed=int(_number("seed", seed, 0, whole=True)),
        lora_alpha=_number("lora_alpha", lora_alpha, 0),
        num_inference_steps=int(_number("num_inference_steps", num_inference_steps, 1, whole=True)),
        guidance_scale=_number("guidance_scale", guidance_scale, 0),
        temperature=_number("temperature", temperature, 0),
        adapter=adapter,
    )


def _number(name: str, value: float | None, least: float, most: float | None = None, whole: bool = False) -> float:
    most = MOST[name] if most is None else most
    wrong = isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
    if wrong or not least <= value <= most or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"`{name}` is {value!r}, but must be {kind} from {least:g} to {most:g}.")
    return float(value)


def whole_number(name: str, value: float | None, least: int, most: int) -> int:
    return int(_number(name, value, least, most, whole=True))


class Handlers:
    """The handlers of one page. They hold no story: the page keeps each visitor's `Desk`.

    Args:
        model (`str`): what `painting` knows the page's pipelines by.
        defaults (`Settings`): what a fresh page starts with.
        adapters (`list[str]`): names that may be chosen.
    """

    def __init__(self, model: str, defaults: Settings, adapters: list[str]):
        self.model, self.defaults, self.adapters = model, defaults, adapters
        self.judged = has_judge(next(iter(painting.MODELS[model].values())))

    # The page opens

    def open(self, kept: str | None) -> tuple:
        """A desk for a visitor; with the story that this browser kept, if it kept one."""
        desk = Desk(self.model, self.defaults)
        if isinstance(kept, str) and kept:
            try:
                desk.open(read_story_json(kept), self.adapters)
                desk.history = replace(desk.history, past=())
                desk.message = "Welcome back. Here is your story."
            except ValueError:
                logger.warning("A story that a browser kept does not fit, and is left out.")
        return desk, desk.view(), *self.controls(desk.board)

    def controls(self, board: Board) -> tuple:
        """The settings as the page's components take them."""
        settings = board.settings
        return (
            settings.seed,
            settings.lora_alpha,
            settings.num_inference_steps,
            settings.guidance_scale,
            settings.temperature,
            settings.adapter,
        )

    def _settings(self, controls: tuple) -> Settings:
        return checked_settings(*controls, self.adapters)

    # A story begins

    def tell(
        self, desk: Desk | None, opening: str, num_frames: float, keep_seed: bool, *controls: Any
    ) -> tuple[Desk, dict, int]:
        """Put a new story on the board: what was written, and room for the rest."""
        desk = here(desk)
        with refusals("This story cannot be told"):
            count = whole_number("num_frames", num_frames, 1, MAX_FRAMES)
            settings = self._settings(controls)
            captions = captions_of(opening)
            captions = [checked_caption(f"caption {number}", each) for number, each in enumerate(captions, 1)]
            if not keep_seed:
                settings = replace(settings, seed=secrets.randbelow(MAX_SEED + 1))
            board = Board.of_captions(settings, story_seed(settings.seed), captions, desk.given, count)
        desk.stopped.clear()
        desk.do(lambda _: board)
        desk.message = "Here we go\u2026"
        return desk, desk.view(), settings.seed

    def surprise(self, desk: Desk | None, num_frames: float, *controls: Any) -> tuple[Desk, dict, int]:
        """A story that the captioner opens itself, under a new seed."""
        here(desk).given.clear()
        return self.tell(desk, "", num_frames, False, *controls)

    # It goes on

    def act(self, desk: Desk | None, event: gr.EventData) -> tuple:
        """A button of the board."""
        desk = here(desk)
        data = event._data if isinstance(event._data, dict) else {}
        action, panel_id, value = data.get("action"), data.get("id"), data.get("value")
        with refusals():
            if panel_id is not None and (isinstance(panel_id, bool) or not isinstance(panel_id, int)):
                raise ValueError("this frame is no longer part of the story.")
            desk.act(str(action), panel_id, value)
        moved = action in ("undo", "redo")
        controls = self.controls(desk.board) if moved else tuple(gr.skip() for _ in self.controls(desk.board))
        return desk, desk.view(), *controls

    def settle(self, desk: Desk | None, *controls: Any) -> tuple[Desk, dict]:
        """A setting was moved: the story on the board follows it. Seed and temperature are for what comes next."""
        desk = here(desk)
        with refusals():
            settings = replace(self._settings(controls), seed=desk.board.settings.seed)
        if desk.board.panels:
            desk.stopped.clear()
        desk.do(lambda board: replace(board, settings=settings), kind="settings")
        return desk, desk.view()

    def choose(self, desk: Desk | None, *controls: Any) -> tuple[Desk, dict, int, float]:
        """Another adapter or alpha: the story is painted with it, in steps and under a guidance that it was made for.

        An adapter of few steps has its own, and at alpha 0 there is the base, which has the model's.
        """
        desk = here(desk)
        seed, lora_alpha, _, _, temperature, adapter = controls
        now = desk.board.settings  # and not the page's numbers: they may be on their way there
        with refusals():
            asked = checked_settings(
                seed, lora_alpha, now.num_inference_steps, now.guidance_scale, temperature, adapter, self.adapters
            )
        sampling = painting.sampling_beside(self.model, now, asked.adapter, asked.lora_alpha)
        return *self.settle(desk, seed, lora_alpha, *sampling, temperature, adapter), *sampling

    def score(self, desk: Desk | None, wanted: bool) -> tuple[Desk, dict]:
        """Show scores under the pictures, or no longer. The judge looks once the painter is done."""
        desk = here(desk)
        desk.scoring = self.judged and bool(wanted)
        return desk, desk.view()

    def work(self, desk: Desk | None) -> Iterator[tuple]:
        """Write and paint what the board waits for. The page is told of every change, the browser's storage once."""
        desk = here(desk)
        try:
            for _ in desk.work():
                yield desk, desk.view(), gr.skip()
            yield desk, desk.view(), kept_text(desk)
        except Exception as error:
            desk.stopped.set()
            desk.message = "That failed. Your story is still here; Continue tries again."
            yield desk, desk.view(), kept_text(desk)
            if not isinstance(error, ValueError):
                logger.exception("painting failed")
                raise gr.Error(
                    "The model failed while it worked. Your story is kept; press Continue to try again.",
                    title="The painter stumbled",
                    print_exception=False,
                ) from error
            raise gr.Error(str(error), title="This story cannot go on", print_exception=False) from error

    # Files come in

    def drop(self, desk: Desk | None, files: list[str] | None) -> tuple:
        """Pictures for the opening, or a story made here before: JSON or PNG."""
        desk = here(desk)
        desk.given.clear()
        nothing = tuple(gr.skip() for _ in self.controls(desk.board))
        opened = False
        with refusals("This file cannot be used"):
            for path in files or []:
                data = Path(path).read_bytes()
                name = Path(path).name
                try:
                    if name.lower().endswith(".json"):
                        file = read_story_json(data[: MAX_JSON_BYTES + 1])
                    else:
                        file = read_png(data)
                        if file is None:
                            picture = open_picture(data)
                            picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
                            desk.given.append(picture)
                    if file is not None:
                        desk.stopped.clear()
                        desk.open(file, self.adapters)
                        opened = True
                except ValueError as error:
                    raise ValueError(f"{name[:80]}: {error}") from None
        if opened:
            desk.given.clear()
            desk.message = "Here is the story of your file."
            return desk, desk.view(), "", *self.controls(desk.board)
        count = len(desk.given)
        note = ""
        if count:
            lines = "the first line" if count == 1 else f"the first {count} lines"
            pictures = "Your picture opens" if count == 1 else f"Your {count} pictures open"
            note = (
                f"{pictures} the next story; {lines} above say what it shows."
                if count == 1
                else (f"{pictures} the next story; {lines} above say what they show.")
            )
        return desk, gr.skip(), note, *nothing

    # Side by side

    def compare(
        self, desk: Desk | None, strengths: list, adapters: list[str], scored: bool = False
    ) -> Iterator[tuple[Desk, str, Any, Any, Any]]:
        """The story in columns, one for each strength and adapter: the same captions and the same noise. With `scored`
        each picture has its scores once all are painted."""
        desk, scored = here(desk), scored and self.judged
        with refusals("Nothing to compare"):
            columns = self.columns(strengths, adapters, desk.board.settings.adapter)
            if not any(frame for frame in desk.board.captions):
                raise ValueError("Tell a story first, then compare it.")
            paths: list[list[str | None]] = []
            for alpha, adapter in columns:
                paths.append(desk.column(alpha, adapter))
                labels = [self.label(*column) for column in columns[: len(paths)]]
                yield desk, self.table(desk, labels, paths), gr.skip(), gr.skip(), gr.skip()
        labels = [self.label(*column) for column in columns]
        if scored:
            desk.judge([path for column in paths for path in column])
        numbers = [f"Frame {number}" for number in range(1, len(paths[0]) + 1)]
        yield (
            desk,
            self.table(desk, labels, paths, scored),
            gr.Dropdown(numbers, value=numbers[0]),
            gr.Dropdown(labels, value=labels[0]),
            gr.Dropdown(labels, value=labels[-1]),
        )

    def columns(self, strengths: list, adapters: list[str], current: str) -> list[tuple[float, str]]:
        """Alpha and adapter of each column. Raises `ValueError` for none, too many, or what is no alpha."""
        alphas = []
        for each in strengths or []:
            try:
                alpha = float(str(each).split()[0])
            except (ValueError, IndexError):
                raise ValueError(f"{str(each)[:20]!r} is no alpha; write a number from 0 to 64.") from None
            alphas.append(_number("lora_alpha", alpha, 0))
        chosen = adapters or [current]
        if any(adapter not in self.adapters for adapter in chosen):
            raise ValueError(f"the adapters here are {', '.join(self.adapters)}.")
        columns = list(dict.fromkeys((alpha, adapter) for adapter in chosen for alpha in alphas))
        if not 1 <= len(columns) <= MAX_COLUMNS:
            raise ValueError(f"that makes {len(columns)} columns; 1 to {MAX_COLUMNS} fit.")
        return columns

    def label(self, alpha: float, adapter: str) -> str:
        name = f"alpha {alpha:g}" + (" (base)" if alpha == 0 else "")
        return f"{name}, {adapter}" if len(self.adapters) > 1 else name

    def table(self, desk: Desk, labels: list[str], paths: list[list[str | None]], scored: bool = False) -> str:
        """The comparison as HTML; every text in it is escaped."""
        captions = [caption for caption in desk.board.captions if caption]
        scores = [desk.scores(captions, column) if scored else [[]] * len(captions) for column in paths]
        head = "".join(f'<th scope="col">{html.escape(label)}</th>' for label in labels)
        rows = []
        for number, caption in enumerate(captions):
            cells = "".join(
                f'<td><img src="gradio_api/file={html.escape(column[number] or "")}" '
                f'alt="{html.escape(caption)} ({html.escape(label)})">{score_list(scores[place][number])}</td>'
                for place, (label, column) in enumerate(zip(labels, paths, strict=True))
                if number < len(column)
            )
            words = f'<td colspan="{len(labels)}">{number + 1}. {html.escape(caption)}</td>'
            rows.append(f'<tr class="words">{words}</tr><tr>{cells}</tr>')
        return (
            f'<div class="scroll" tabindex="0" role="region" aria-label="Comparison" style="--columns:{len(labels)}">'
            f"<table><caption>The same captions and the same noise in every column.</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )

    def pair(self, desk: Desk | None, frame: str | None, left: str | None, right: str | None) -> tuple | None:
        """Two columns of one frame, for the slider between before and after."""
        desk = here(desk)
        number = int(str(frame or "Frame 1").split()[-1]) - 1
        columns = {}
        for alpha in {recipe.lora_alpha for recipe in desk.pictures}:
            for adapter in self.adapters:
                columns[self.label(alpha, adapter)] = (alpha, adapter)
        if left not in columns or right not in columns:
            return None
        sides = [desk.column(*columns[side], paint=False) for side in (left, right)]
        if any(number >= len(side) or side[number] is None for side in sides):
            return None
        return sides[0][number], sides[1][number]

    def sweep(self, desk: Desk | None) -> tuple[Desk, dict, Any]:
        """One more strength of the sweep; the timer rests once all are there."""
        desk = here(desk)
        board, alphas = desk.board, self.sweep_alphas(desk.board)
        if not board.panels or desk.busy or board.to_write() or board.to_paint():
            return desk, gr.skip(), gr.skip()
        with refusals():
            for alpha in alphas:
                if not all(desk.column(alpha, paint=False)):
                    desk.column(alpha)
                    break
        columns = [desk.column(alpha, paint=False) for alpha in alphas]
        done = all(all(column) for column in columns)
        trained = self.trained_alpha()
        view = {
            "alphas": [f"{alpha:g}" for alpha in alphas],
            "strengths": [f"{alpha / trained:.2f}" for alpha in alphas],
            "captions": board.captions,
            "columns": columns,
        }
        return desk, view, gr.Timer(active=not done)

    def trained_alpha(self) -> float:
        return next(iter(painting.MODELS[self.model].values())).trained_lora_alpha

    def sweep_alphas(self, board: Board) -> list[float]:
        """Nine strengths from the base to one and a half times the training, and the story's own."""
        top = min(1.5 * self.trained_alpha(), MOST["lora_alpha"])
        return sorted({round(top * step / 8, 1) for step in range(9)} | {board.settings.lora_alpha})

    # The story goes home

    def take(self, desk: Desk | None, title: str, kind: str) -> tuple[Desk, Any]:
        """The story as a file."""
        desk = here(desk)
        with refusals("Nothing to take away yet"):
            path = write_file(*export(desk.story(), kind, str(title)[:200], desk.board.facts()))
        return desk, gr.File(path, visible=True)


def score_list(scores: list[Score]) -> str:
    items = "".join(f'<li class="{score.kind}">{html.escape(score.text)}</li>' for score in scores)
    return f'<ul class="scores" aria-label="Scores">{items}</ul>' if items else ""


def here(desk: Desk | None) -> Desk:
    """The visitor's desk; it is cleared after hours of rest."""
    if desk is None:
        raise gr.Error(
            "This page rested for a long time, and its story was put away. Reload the page: the story comes back.",
            title="Please reload",
            print_exception=False,
        )
    return desk


def kept_text(desk: Desk) -> str:
    """The story for the browser's storage: what can be painted again is left out."""
    board = desk.board
    if not board.panels:
        return ""
    story = board.story()
    text = story_json(story, board.facts(), pictures="given")
    return text if len(text) <= KEPT_BYTES else story_json(story, board.facts(), pictures="none")
