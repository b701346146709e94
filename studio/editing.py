"""The story on the page as a value: what can be done to it, what is out of date, and every step back and forth.

Nothing here paints, writes or knows of a page. Each operation returns another `Board`; a caption that is "" waits for
the captioner, and a frame whose `painted` is not what it `wants` waits for the painter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from PIL import Image

from sagan_pipeline import Frame, Story
from sagan_pipeline.checks import MAX_CAPTION
from sagan_pipeline.story import seed_for
from sagan_pipeline.story_file import StoryFile


MAX_FRAMES = 16
MAX_SEED = 2**31 - 1  # of a story, as it is typed
KEPT_STEPS = 100  # to go back
# of the settings, whoever asks
MOST = {"seed": MAX_SEED, "lora_alpha": 64.0, "num_inference_steps": 50, "guidance_scale": 20.0, "temperature": 2.0}


@dataclass(frozen=True)
class Settings:
    """What a story is made with."""

    seed: int
    lora_alpha: float
    num_inference_steps: int
    guidance_scale: float
    temperature: float
    adapter: str


@dataclass(frozen=True)
class Recipe:
    """All that a painted picture depends on."""

    caption: str
    seed: int
    lora_alpha: float
    num_inference_steps: int
    guidance_scale: float
    adapter: str


@dataclass(frozen=True)
class Panel:
    """A frame on the page.

    Args:
        id (`int`): stays when the frame moves.
        frame (`Frame`): its `index` is not used here.
        painted (`Recipe`, *optional*): what its picture was painted from; `None` of a given picture, or of none.
    """

    id: int
    frame: Frame
    painted: Recipe | None = None


@dataclass(frozen=True)
class Board:
    """The story on the page.

    Args:
        settings (`Settings`): what the next frame is made with.
        story_seed (`int`): what the captions and the noise of new frames follow from.
        panels (`tuple[Panel, ...]`): the frames.
        next_id (`int`): of the next new frame.
    """

    settings: Settings
    story_seed: int
    panels: tuple[Panel, ...] = ()
    next_id: int = 0

    @classmethod
    def of_captions(
        cls,
        settings: Settings,
        story_seed: int,
        captions: list[str],
        images: list[Image.Image] | None = None,
        num_frames: int = 0,
    ) -> Board:
        """A story that opens with `captions`, some of them with images, and has `num_frames` at least.

        Raises:
            ValueError: more images than captions, or more than `MAX_FRAMES` frames.
        """
        images = images or []
        if len(images) > len(captions):
            raise ValueError(
                f"there are {len(images)} pictures, but {len(captions)} opening captions; write one for each picture."
            )
        board = cls(settings, story_seed)
        for number in range(max(num_frames, len(captions))):
            image = images[number] if number < len(images) else None
            board = board.insert(number, captions[number] if number < len(captions) else "", image)
        return board

    @classmethod
    def of_file(cls, file: StoryFile, settings: Settings, adapters: list[str], story_seed: int) -> Board:
        """The story of a file, as it was. `settings` fill what the file does not say; an adapter that is not one of
        `adapters` is replaced. A picture that these settings would not paint is pinned.

        Raises:
            ValueError: it has more than `MAX_FRAMES` frames, or none.
        """
        frames = file.story.frames
        if not 1 <= len(frames) <= MAX_FRAMES:
            raise ValueError(f"the story has {len(frames)} frames; accepted are 1 to {MAX_FRAMES}.")
        known = {each.name: file.settings[each.name] for each in fields(Settings) if each.name in file.settings}
        by_frame = [frame for frame in frames if frame.lora_alpha is not None and not frame.pinned]
        for name in ("lora_alpha", "num_inference_steps", "guidance_scale", "adapter"):
            value = getattr(by_frame[0], name) if by_frame else None
            if name not in known and value is not None:
                known[name] = value
        settings = replace(settings, **{name: min(value, MOST.get(name, value)) for name, value in known.items()})
        if settings.adapter not in adapters:
            settings = replace(settings, adapter=adapters[0])
        seed = file.story.seed if file.story.seed is not None else story_seed
        panels = []
        for number, frame in enumerate(frames):
            own = frame.seed if frame.seed is not None else seed_for(seed, "noise", number)
            painted = None
            if frame.image is not None and not frame.image_given:
                if frame.seed is None or frame.lora_alpha is None:
                    frame = replace(frame, image_given=True)  # nobody says how it was made
                else:
                    painted = Recipe(
                        frame.caption,
                        own,
                        frame.lora_alpha,
                        frame.num_inference_steps or settings.num_inference_steps,
                        settings.guidance_scale if frame.guidance_scale is None else frame.guidance_scale,
                        frame.adapter or settings.adapter,
                    )
            frame = replace(frame, seed=own, image_given=frame.image_given and frame.image is not None)
            panels.append(Panel(number, frame, painted))
        board = cls(settings, seed, tuple(panels), len(panels))
        for panel, _ in board.to_paint():
            if panel.frame.image is not None:  # made in a way that these settings are not: it comes back as it was
                board = board.change(panel.id, pinned=True)
        return board

    # Looking

    @property
    def captions(self) -> list[str]:
        return [panel.frame.caption for panel in self.panels]

    def place(self, panel_id: int) -> int:
        """Where the frame stands. Raises `ValueError` if it is gone."""
        for place, panel in enumerate(self.panels):
            if panel.id == panel_id:
                return place
        raise ValueError("this frame is no longer part of the story.")

    def panel(self, panel_id: int) -> Panel:
        return self.panels[self.place(panel_id)]

    def before(self, panel_id: int) -> tuple[str, ...]:
        """The captions before the frame."""
        return tuple(self.captions[: self.place(panel_id)])

    def is_stale(self, panel: Panel) -> bool:
        """Whether the captioner wrote this caption from others than those that now stand before it."""
        written_from = panel.frame.written_from
        return bool(panel.frame.caption) and written_from is not None and written_from != self.before(panel.id)

    def wants(self, panel: Panel) -> Recipe | None:
        """What the frame's picture should be painted from; `None` if it stays as it is, or has no caption yet.

        A pinned or given picture stays. Another one follows its caption, its seed and the story's settings.
        """
        frame, settings = panel.frame, self.settings
        kept = frame.image is not None and (frame.pinned or frame.image_given)
        if kept or not frame.caption or frame.seed is None:
            return None
        return Recipe(
            frame.caption,
            frame.seed,
            settings.lora_alpha,
            settings.num_inference_steps,
            settings.guidance_scale,
            settings.adapter,
        )

    def to_paint(self) -> list[tuple[Panel, Recipe]]:
        """The frames whose picture is missing or out of date, in order."""
        wanted = [(panel, self.wants(panel)) for panel in self.panels]
        return [
            (panel, recipe)
            for panel, recipe in wanted
            if recipe is not None and (panel.frame.image is None or panel.painted != recipe)
        ]

    def to_write(self) -> Panel | None:
        """The first frame without a caption."""
        return next((panel for panel in self.panels if not panel.frame.caption), None)

    def story(self) -> Story:
        return Story(
            [replace(panel.frame, index=n) for n, panel in enumerate(self.panels) if panel.frame.caption],
            self.story_seed,
        )

    def facts(self) -> dict[str, Any]:
        """The settings, as a story file has them."""
        return asdict(self.settings)

    # Doing

    def change(self, panel_id: int, **changes: Any) -> Board:
        """One frame's `Frame` changed."""
        place = self.place(panel_id)
        panel = self.panels[place]
        new = replace(panel, frame=replace(panel.frame, **changes))
        return replace(self, panels=(*self.panels[:place], new, *self.panels[place + 1 :]))

    def insert(self, place: int, caption: str = "", image: Image.Image | None = None) -> Board:
        """A new frame before the one at `place`. Raises `ValueError` if the story is long enough."""
        if len(self.panels) >= MAX_FRAMES:
            raise ValueError(f"a story here has {MAX_FRAMES} frames at most.")
        frame = Frame(
            caption,
            image,
            seed=seed_for(self.story_seed, "noise", self.next_id),
            caption_given=bool(caption),
            image_given=image is not None,
        )
        panels = (*self.panels[:place], Panel(self.next_id, frame), *self.panels[place:])
        return replace(self, panels=panels, next_id=self.next_id + 1)

    def edit(self, panel_id: int, caption: str) -> Board:
        """The visitor's own caption. Raises `ValueError` if it is too long or the frame is pinned."""
        self.check_unpinned(panel_id)
        text = " ".join(caption.split())
        if not text:
            raise ValueError("a caption needs a word; delete the frame, or let the captioner rewrite it.")
        if len(text) > MAX_CAPTION:
            raise ValueError(f"the caption has {len(text)} characters; at most {MAX_CAPTION} are accepted.")
        if text == self.panel(panel_id).frame.caption:
            return self
        return self.change(panel_id, caption=text, caption_given=True, written_from=None)

    def write(self, panel_id: int, caption: str) -> Board:
        """The captioner's caption, written from those before it."""
        return self.change(panel_id, caption=caption, caption_given=False, written_from=self.before(panel_id))

    def rewrite(self, panel_id: int | None = None) -> Board:
        """Let the captioner write this caption again, or all stale ones."""
        board = self
        for panel in self.panels:
            stale = panel_id is None and self.is_stale(panel) and not panel.frame.pinned
            if panel.id == panel_id or stale:
                self.check_unpinned(panel.id)
                board = board.change(panel.id, caption="", caption_given=False, written_from=None)
        return board

    def keep(self, panel_id: int | None = None) -> Board:
        """Take this caption, or all stale ones, as written from what now stands before it."""
        board = self
        for panel in self.panels:
            if panel.frame.written_from is not None and panel_id in (None, panel.id):
                board = board.change(panel.id, written_from=self.before(panel.id))
        return board

    def redraw(self, panel_id: int) -> Board:
        """Other noise for this frame; a given picture gives way to a painted one."""
        self.check_unpinned(panel_id)
        seed = self.panel(panel_id).frame.seed
        new = seed_for(seed if seed is not None else self.story_seed, "redraw", panel_id)
        return self.change(panel_id, seed=new, image_given=False)

    def pin(self, panel_id: int) -> Board:
        """Pin the frame, or let it loose."""
        return self.change(panel_id, pinned=not self.panel(panel_id).frame.pinned)

    def move(self, panel_id: int, by: int) -> Board:
        """The frame `by` places later; as far as the story goes."""
        place = self.place(panel_id)
        panels = list(self.panels)
        panels.insert(max(0, min(len(panels) - 1, place + by)), panels.pop(place))
        return replace(self, panels=tuple(panels))

    def delete(self, panel_id: int) -> Board:
        place = self.place(panel_id)
        return replace(self, panels=(*self.panels[:place], *self.panels[place + 1 :]))

    def set(self, **settings: Any) -> Board:
        return replace(self, settings=replace(self.settings, **settings))

    def paint(self, panel_id: int, recipe: Recipe, image: Image.Image, flagged: bool, model: str | None) -> Board:
        """The picture painted from `recipe`, if that is still what the frame wants."""
        try:
            panel = self.panel(panel_id)
        except ValueError:
            return self
        if self.wants(panel) != recipe:
            return self
        place = self.place(panel_id)
        frame = replace(
            panel.frame,
            image=image,
            lora_alpha=recipe.lora_alpha,
            num_inference_steps=recipe.num_inference_steps,
            guidance_scale=recipe.guidance_scale,
            adapter=recipe.adapter,
            flagged=flagged,
            model=model,
        )
        new = replace(panel, frame=frame, painted=recipe)
        return replace(self, panels=(*self.panels[:place], new, *self.panels[place + 1 :]))

    def check_unpinned(self, panel_id: int) -> None:
        """Raises `ValueError` if the frame is pinned."""
        if self.panel(panel_id).frame.pinned:
            raise ValueError("this frame is pinned; unpin it first.")


@dataclass(frozen=True)
class History:
    """The board with every step back and forth."""

    present: Board
    past: tuple[Board, ...] = ()
    future: tuple[Board, ...] = field(default=())

    def do(self, board: Board, join: bool = False) -> History:
        """A step of the visitor. With `join` it is part of the step before it: one drag of a slider is one step."""
        if board == self.present:
            return self
        past = self.past if join and self.past else (*self.past, self.present)[-KEPT_STEPS:]
        return History(board, past)

    def amend(self, change: Callable[[Board], Board]) -> History:
        """What the machine adds to the step that is on the page."""
        return replace(self, present=change(self.present))

    def undo(self) -> History:
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future))

    def redo(self) -> History:
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:])
