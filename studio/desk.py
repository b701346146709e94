"""One visitor's story, and what happens to it: what the board asks for, and the work that brings it up to date."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from sagan_pipeline import Story
from sagan_pipeline.checks import checked_caption
from sagan_pipeline.story import draw_seed
from sagan_pipeline.story_file import StoryFile, frame_png

from . import judging, painting
from .editing import MAX_FRAMES, Board, History, Panel, Recipe, Settings
from .files import write_file
from .judging import Score, Seen
from .painting import Painted, frame_of


KEPT_PICTURES = 400  # of one visitor
SUGGESTIONS = 3
JOINED_SECONDS = 1.5  # moves of a slider within are one step
GLANCE = 0.15  # seconds between two captions that the page shows one by one
PATIENCE = 1.0  # seconds that a picture nobody wants any more may still take


def story_seed(seed: int) -> int:
    """What the pipeline draws from `torch.Generator().manual_seed(seed)` for a story."""
    return draw_seed(torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Shown:
    """A picture and the file that the page shows."""

    picture: Painted
    path: str


class Desk:
    """What one visitor has on the page. Handlers of one visitor may run at once: the board changes under `lock`."""

    def __init__(self, model: str, settings: Settings):
        self.model = model
        self.history = History(Board(settings, story_seed(settings.seed)))
        self.pictures: OrderedDict[Recipe, Shown] = OrderedDict()
        self.given: list[Image.Image] = []  # pictures for the next story's opening
        self.stopped = threading.Event()
        self.lock = threading.RLock()
        self.version = 0
        self.message = ""
        self.previews: dict[int, str] = {}
        self.progress: dict[int, float] = {}
        self.writing: int | None = None
        self.asking: int | None = None
        self.options: list[str] = []
        self.rolls = 0
        self.busy = False
        self.scoring = False  # whether the page shows scores
        self.seen: OrderedDict[str, Seen] = OrderedDict()  # by the picture's file
        self._joined: tuple[str, float] = ("", 0.0)
        self._given_paths: OrderedDict[int, tuple[Image.Image, str]] = OrderedDict()

    @property
    def board(self) -> Board:
        return self.history.present

    # What the visitor does

    def do(self, change: Callable[[Board], Board], kind: str = "") -> None:
        """One step. Steps of one `kind` that follow each other at once are one."""
        with self.lock:
            now = time.monotonic()
            join = bool(kind) and self._joined[0] == kind and now - self._joined[1] < JOINED_SECONDS
            self.history = self.history.do(change(self.board), join)
            self._joined = (kind, now)
            self._fill()
            self.message = "Repainting\u2026" if kind == "settings" and self.board.to_paint() else ""

    def step(self, back: bool) -> None:
        with self.lock:
            self.history = self.history.undo() if back else self.history.redo()
            self._joined = ("", 0.0)
            self.message = "Undone." if back else "Done again."
            self.asking, self.options = None, []
            self._fill()

    def act(self, action: str, panel_id: int | None = None, value: Any = None) -> None:
        """What a button of the board asks for. Raises `ValueError` for what cannot be."""
        text = value if isinstance(value, str) else ""
        steps: dict[str, Callable[[Board], Board]] = {
            "caption": lambda board: board.edit(panel_id, checked_caption("the caption", text)),
            "redraw": lambda board: board.redraw(panel_id),
            "pin": lambda board: board.pin(panel_id),
            "earlier": lambda board: board.move(panel_id, -1),
            "later": lambda board: board.move(panel_id, 1),
            "delete": lambda board: board.delete(panel_id),
            "insert": lambda board: board.insert(board.place(panel_id) + 1),
            "keep": lambda board: board.keep(panel_id),
            "rewrite": lambda board: board.rewrite(panel_id),
            "more": lambda board: board.insert(len(board.panels)),
        }
        if action in ("undo", "redo"):
            self.step(action == "undo")
        elif action == "stop":
            self.stopped.set()
            self.message = "Stopped. What is there stays; go on whenever you like."
        elif action == "continue":
            self.stopped.clear()
        elif action == "reroll":
            self.board.check_unpinned(panel_id)
            self.asking, self.options = panel_id, []
            self.stopped.clear()
        elif action == "choose":
            self._choose(value)
        elif action == "dismiss":
            self.asking, self.options = None, []
        elif action in steps:
            self.do(steps[action])
            if action not in ("pin", "earlier", "later", "delete", "keep"):
                self.stopped.clear()
        else:
            raise ValueError(f"the board knows no {str(action)[:20]!r}.")

    def _choose(self, number: Any) -> None:
        if self.asking is None or not isinstance(number, int) or not 0 <= number < len(self.options):
            raise ValueError("this suggestion is gone; ask for others.")
        chosen, panel_id = self.options[number], self.asking
        self.asking, self.options = None, []
        self.stopped.clear()
        self.do(lambda board: board.write(panel_id, chosen))

    def open(self, file: StoryFile, adapters: list[str]) -> None:
        """The story of a file instead of this one; undo brings this one back."""
        settings = self.board.settings
        self.do(lambda board: Board.of_file(file, settings, adapters, story_seed(settings.seed)))
        self.asking, self.options = None, []

    # What the machine does

    def amend(self, change: Callable[[Board], Board]) -> None:
        with self.lock:
            self.history = self.history.amend(change)

    def _fill(self) -> None:
        """Pictures that were painted before need no painting."""
        for panel, recipe in self.board.to_paint():
            if recipe in self.pictures:
                self._hang(panel, recipe)

    def _hang(self, panel: Panel, recipe: Recipe) -> None:
        picture = self.pictures[recipe].picture
        self.pictures.move_to_end(recipe)
        self.amend(lambda board: board.paint(panel.id, recipe, picture.image, picture.flagged, picture.model))

    def remember(self, recipe: Recipe, picture: Painted, number: int = 1) -> Shown:
        """Keep a picture, as a file that the page can show and that can be dropped here again."""
        path = write_file(f"frame-{number:02}.png", frame_png(frame_of(recipe, picture)))
        self.pictures[recipe] = Shown(picture, path)
        while len(self.pictures) > KEPT_PICTURES:
            self.pictures.popitem(last=False)
        return self.pictures[recipe]

    def work(self) -> Iterator[None]:
        """Write the captions and paint the pictures that the board waits for; yields whenever the page should look
        again. What the visitor does meanwhile counts at once."""
        self.busy = not self.stopped.is_set()
        start, painted, shown = time.perf_counter(), 0, 0.0
        try:
            while not self.stopped.is_set():
                self._fill()
                todo = self.board.to_paint()
                if self.asking is not None and len(self.options) < SUGGESTIONS:
                    self._suggest()
                    yield
                elif panel := self.board.to_write():
                    self.writing, self.message = panel.id, "Writing the captions\u2026"
                    if time.perf_counter() - shown > GLANCE:
                        shown = time.perf_counter()
                        yield
                    self._write(panel)
                elif todo and all(panel.frame.image is not None for panel, _ in todo):
                    yield from self._paint(todo)
                    painted += len(todo)
                elif todo:
                    missing = next(each for each in todo if each[0].frame.image is None)
                    yield from self._paint([missing])
                    painted += 1
                else:
                    break
                self.writing = None
        finally:
            self.busy, self.writing = False, None
            self.previews, self.progress = {}, {}
        if painted and not self.stopped.is_set():
            frames = "1 frame" if painted == 1 else f"{painted} frames"
            self.message = f"{frames} in {time.perf_counter() - start:.1f} s."
        yield
        if self.scoring and self.judge([self.path_of(panel) for panel in self.board.panels]):
            yield

    def _write(self, panel: Panel) -> None:
        board = self.board
        if panel not in board.panels:
            return
        settings = board.settings
        caption = painting.write_caption(self.model, board.before(panel.id), settings.seed, settings.temperature)

        def written(now: Board) -> Board:
            return now.write(panel.id, caption) if panel in now.panels else now

        self.amend(written)

    def _suggest(self) -> None:
        board = self.board
        try:
            before, now = board.before(self.asking), board.panel(self.asking).frame.caption
        except ValueError:
            self.asking, self.options = None, []
            return
        # bolder each time it says what it has said
        settings, caption = board.settings, ""
        for attempt in range(8):
            self.rolls += 1
            heat = min(2.0, max(settings.temperature, 0.3) + 0.2 * attempt)
            caption = painting.write_caption(self.model, before, settings.seed, heat, self.rolls)
            if caption != now and caption not in self.options:
                break
        self.options = [*self.options, caption]

    def _paint(self, todo: list[tuple[Panel, Recipe]]) -> Iterator[None]:
        """Paint these in one batch, unless the visitor stops it or wants something else."""
        recipes = tuple(recipe for _, recipe in todo)
        waiting = len(self.board.to_paint())
        alone = len(todo) == 1
        if alone:
            self.progress[todo[0][0].id] = 0.0
        pictures: list[Painted] = []
        with closing(painting.paint(self.model, recipes, previews=alone)) as steps:
            for step in steps:
                if isinstance(step, Painted):
                    pictures.append(step)
                    continue
                left = (1 - step.number / step.total) * painting.seconds_a_picture(self.model) * len(todo)
                if self.stopped.is_set() or (left > PATIENCE and not self._wanted(todo)):
                    return
                if step.look:
                    done = step.number / step.total
                    if step.previews:
                        self.previews[todo[0][0].id], self.progress[todo[0][0].id] = step.previews[0], done
                    self.message = self._left(waiting, done * len(todo), alone)
                    yield
        for (panel, recipe), picture in zip(todo, pictures, strict=True):
            number = next((n for n, each in enumerate(self.board.panels, 1) if each.id == panel.id), 1)
            self.remember(recipe, picture, number)
            self._hang(panel, recipe)
            self.previews.pop(panel.id, None)
            self.progress.pop(panel.id, None)
        # no yield: the page sees them as the next begin, or when all is done, and the painter waits for nobody

    def _wanted(self, todo: list[tuple[Panel, Recipe]]) -> bool:
        now = {panel.id: recipe for panel, recipe in self.board.to_paint()}
        return all(now.get(panel.id) == recipe for panel, recipe in todo)

    def _left(self, waiting: int, done: float, alone: bool) -> str:
        seconds = painting.seconds_a_picture(self.model) * (waiting - done)
        about = f"about {seconds:.0f} s left" if seconds >= 1.5 else "nearly there"
        if not alone:
            return f"Repainting {waiting} frames, {about}."
        total = len(self.board.panels)
        return f"Painting frame {total - waiting + 1} of {total}, {about}."

    # Other strengths and adapters, beside the story

    def under(self, lora_alpha: float, adapter: str | None = None) -> list[tuple[Panel, Recipe | None]]:
        """The story's frames under another strength or adapter: the same captions, the same noise. `None` where the
        picture was given."""
        board = self.board
        rows = []
        for panel in board.panels:
            frame = panel.frame
            if not frame.caption:
                continue
            recipe = None
            if not frame.image_given:
                name = adapter or board.settings.adapter
                steps, guidance = painting.sampling_beside(self.model, board.settings, name, lora_alpha)
                recipe = Recipe(frame.caption, frame.seed, float(lora_alpha), steps, guidance, name)
            rows.append((panel, recipe))
        return rows

    def column(self, lora_alpha: float, adapter: str | None = None, paint: bool = True) -> list[str | None]:
        """Paths of the story's pictures under another strength or adapter; painted now if `paint`, else `None` where
        they are not there yet."""
        rows = self.under(lora_alpha, adapter)
        missing = tuple(dict.fromkeys(r for _, r in rows if r is not None and r not in self.pictures))
        if missing and paint:
            with closing(painting.paint(self.model, missing, previews=False)) as steps:
                pictures = [step for step in steps if isinstance(step, Painted)]
            for recipe, picture in zip(missing, pictures, strict=True):
                self.remember(recipe, picture)
        return [self.path_of(panel) if r is None else self._path(r) for panel, r in rows]

    def _path(self, recipe: Recipe) -> str | None:
        shown = self.pictures.get(recipe)
        return shown.path if shown else None

    def path_of(self, panel: Panel) -> str | None:
        """The file of the picture that the frame shows."""
        if panel.frame.image is None:
            return None
        if panel.painted in self.pictures:
            return self.pictures[panel.painted].path
        key = id(panel.frame.image)
        if key not in self._given_paths:
            path = write_file("frame.png", frame_png(replace(panel.frame, pinned=False)))
            self._given_paths[key] = (panel.frame.image, path)  # the picture too, so that its id stays its own
            while len(self._given_paths) > 4 * MAX_FRAMES:
                self._given_paths.popitem(last=False)
        return self._given_paths[key][1]

    # What a judge sees

    def judge(self, paths: list[str | None]) -> bool:
        """Let the judge look at these of the story's pictures, if it has not; whether it saw a new one. It does not
        look at what was given or withheld."""
        pictures = {shown.path: shown.picture.image for shown in self.pictures.values() if not shown.picture.flagged}
        for panel in self.board.panels:
            if panel.painted is not None and not panel.frame.flagged:  # also those that came with a story's file
                pictures[self.path_of(panel)] = panel.frame.image
        new = [path for path in dict.fromkeys(paths) if path in pictures and path not in self.seen]
        self.seen.update(zip(new, judging.look_at([pictures[path] for path in new]), strict=True))
        while len(self.seen) > KEPT_PICTURES:
            self.seen.popitem(last=False)
        return bool(new)

    def scores(self, captions: list[str], paths: list[str | None]) -> list[list[Score]]:
        """What the page says under each picture of a column; nothing where the judge has not looked."""
        seen = [self.seen.get(path) if path else None for path in paths]
        return [
            judging.scores(caption, now, before) if now else []
            for caption, now, before in zip(captions, seen, [None, *seen], strict=False)
        ]

    # What the page shows

    def story(self) -> Story:
        """The story so far, up to what has no picture."""
        story = self.board.story()
        return replace(story, frames=[frame for frame in story.frames if frame.image is not None])

    def view(self) -> dict[str, Any]:
        """The board as the page draws it."""
        with self.lock:
            self.version += 1
            board = self.board
            frames = [self._frame(board, panel) for panel in board.panels]
            if self.scoring:
                for frame, scores in zip(frames, self._board_scores(), strict=True):
                    frame["scores"] = [[score.kind, score.text] for score in scores]
            asked = self.asking is not None and len(self.options) < SUGGESTIONS
            unfinished = board.to_write() is not None or bool(board.to_paint())
            stopped = self.stopped.is_set()
            return {
                "version": self.version,
                "frames": frames,
                "message": self.message,
                # whoever changes the board starts the work, so what is unfinished is being worked on
                "busy": self.busy or (not stopped and (unfinished or asked)),
                "unfinished": unfinished and stopped,
                "can_undo": bool(self.history.past),
                "can_redo": bool(self.history.future),
                "full": len(frames) >= MAX_FRAMES,
                "stale": sum(frame["stale"] for frame in frames),
                "asking": self.asking,
                "options": list(self.options),
                "scoring": self.scoring,
            }

    def _board_scores(self) -> list[list[Score]]:
        return self.scores(self.board.captions, [self.path_of(panel) for panel in self.board.panels])

    def _frame(self, board: Board, panel: Panel) -> dict[str, Any]:
        frame = panel.frame
        path = self.path_of(panel)
        return {
            "id": panel.id,
            "caption": frame.caption,
            "src": f"gradio_api/file={path}" if path else "",
            "preview": self.previews.get(panel.id, ""),
            "progress": self.progress.get(panel.id),
            "writing": self.writing == panel.id,
            "stale": board.is_stale(panel),
            "pinned": frame.pinned,
            "given": frame.image_given,
            "flagged": frame.flagged,
            "facts": facts_of(panel),
        }


def facts_of(panel: Panel) -> str:
    """How the frame was made, in words."""
    if panel.frame.image_given:
        return "your own picture"
    if panel.painted is None:
        return ""
    made = panel.painted
    return (
        f"seed {made.seed}, alpha {made.lora_alpha:g}, {made.num_inference_steps} steps, "
        f"guidance {made.guidance_scale:g}, {made.adapter}"
    )
