"""The endpoints for programs: typed, documented, each by itself; the same functions are MCP tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import gradio as gr

from sagan_pipeline import Frame, Story
from sagan_pipeline.checks import checked_caption
from sagan_pipeline.export import KINDS, export
from sagan_pipeline.story import seed_for
from sagan_pipeline.story_file import frame_png, read_story_json, story_json

from . import painting
from .desk import story_seed
from .editing import MAX_FRAMES, MAX_SEED, Recipe, Settings
from .files import write_file
from .handlers import Handlers, checked_settings, refusals, whole_number
from .painting import Painted, frame_of
from .words import captions_of


Pictures = list[tuple[str, str]]
Kind = Literal["strip", "grid", "comic", "storybook", "pdf", "gif", "frames", "story"]


class Endpoints:
    """What programs may call. Nothing is remembered between two calls."""

    def __init__(self, handlers: Handlers):
        self.model, self.defaults, self.adapters = handlers.model, handlers.defaults, handlers.adapters

    def tell_story(
        self,
        opening: str,
        num_frames: int,
        seed: int,
        alpha: float,
        steps: int | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        adapter: str | None = None,
    ) -> tuple[Pictures, str]:
        """Tell an illustrated story: continue the opening captions, and paint every frame.

        Args:
            opening: English captions, one a line, as "Gus is in the kitchen."; if empty, one is written.
            num_frames: Frames of the whole story, the opening included, 1 to 16.
            seed: Seed of the story, 0 to 2147483647. The same seed tells the same story.
            alpha: How much of the adapter is added, 0 to 64: 0 is the base model, the trained alpha paints the cast.
            steps: Denoising steps, 1 to 50; more are slower. None: as many as the adapter was made for.
            guidance: How closely a picture keeps to its caption, 0 to 20. None: as the adapter was made for.
            temperature: Boldness of the captions, 0 to 2; 0 writes the likeliest words.
            adapter: Name of the adapter.

        Returns:
            The frames in order, each a PNG and its caption, and the story file as JSON text, which export_story takes.
        """
        with refusals("This story cannot be told"):
            settings = self._settings(seed, alpha, steps, guidance, temperature, adapter)
            count = whole_number("num_frames", num_frames, 1, MAX_FRAMES)
            captions = self._captions(opening)
            if len(captions) > count:
                raise ValueError(f"`num_frames` is {count}, but the opening alone has {len(captions)} captions.")
            given = len(captions)
            while len(captions) < count:
                captions.append(self._next(captions, settings))
            own = story_seed(settings.seed)
            seeds = [seed_for(own, "noise", number) for number in range(count)]
            frames = self._paint(captions, seeds, settings)
            frames = [
                Frame(**{**frame.__dict__, "caption_given": n < given, "index": n}) for n, frame in enumerate(frames)
            ]
            frames[given:] = [
                Frame(**{**frame.__dict__, "written_from": tuple(captions[: given + n])})
                for n, frame in enumerate(frames[given:])
            ]
            story = Story(frames, own)
            return self._files(frames), story_json(story, settings.__dict__)

    def next_caption(self, captions: str, seed: int, temperature: float, suggestions: int) -> list[str]:
        """Write the caption that comes next in a story; several suggestions to choose from.

        Args:
            captions: The captions so far, one a line; may be empty.
            seed: Seed, 0 to 2147483647. The same seed writes the same captions.
            temperature: Boldness, 0 to 2; 0 writes the likeliest words.
            suggestions: How many suggestions, 1 to 5.

        Returns:
            The suggestions. The first is the caption that tell_story writes there with this seed.
        """
        with refusals("No caption follows"):
            settings = self._settings(seed=seed, temperature=temperature)
            before = self._captions(captions)
            count = whole_number("suggestions", suggestions, 1, 5)
            return [self._next(before, settings, number or None) for number in range(count)]

    def paint_frame(
        self,
        caption: str,
        seed: int,
        alpha: float,
        steps: int | None = None,
        guidance: float | None = None,
        adapter: str | None = None,
    ) -> str:
        """Paint one frame of a story from its caption.

        Args:
            caption: What the picture shows, in English, one or two short sentences.
            seed: Seed of the picture's noise, 0 to 2147483647. The same seed paints the same picture.
            alpha: How much of the adapter is added, 0 to 64: 0 is the base model, the trained alpha paints the cast.
            steps: Denoising steps, 1 to 50; more are slower. None: as many as the adapter was made for.
            guidance: How closely the picture keeps to its caption, 0 to 20. None: as the adapter was made for.
            adapter: Name of the adapter.

        Returns:
            A PNG that carries everything needed to make it again.
        """
        with refusals("This frame cannot be painted"):
            settings = self._settings(seed, alpha, steps, guidance, None, adapter)
            (frame,) = self._paint([checked_caption("`caption`", caption)], [settings.seed], settings)
            return self._files([frame])[0][0]

    def compare_alpha(
        self,
        captions: str,
        alphas: str,
        seed: int,
        steps: int | None = None,
        guidance: float | None = None,
        adapter: str | None = None,
    ) -> Pictures:
        """Paint the same story under several strengths of the adapter: same captions, same noise.

        Args:
            captions: The captions of the story, one a line, 1 to 16.
            alphas: Strengths to compare, numbers from 0 to 64 parted by commas, such as "0, 10, 32"; 1 to 6.
            seed: Seed of the story, 0 to 2147483647.
            steps: Denoising steps, 1 to 50; more are slower. None: as many as the adapter was made for.
            guidance: How closely a picture keeps to its caption, 0 to 20. None: as the adapter was made for.
            adapter: Name of the adapter.

        Returns:
            The pictures, frame by frame and within a frame alpha by alpha, each a PNG and "alpha A: caption".
        """
        with refusals("Nothing to compare"):
            given = self._captions(captions)
            if not 1 <= len(given) <= MAX_FRAMES:
                raise ValueError(f"`captions` has {len(given)} lines; 1 to {MAX_FRAMES} are accepted.")
            try:
                values = [float(each) for each in alphas.split(",")]
            except ValueError:
                raise ValueError(f"`alphas` is {alphas[:50]!r}, but must be numbers parted by commas.") from None
            if not 1 <= len(values) <= 6:
                raise ValueError(f"`alphas` has {len(values)} numbers; 1 to 6 are accepted.")
            wishes = [self._settings(seed, alpha, steps, guidance, None, adapter) for alpha in values]
            strongest = max(wishes, key=lambda wish: wish.lora_alpha)
            settings = [self._beside(strongest, alpha) for alpha in values]
            own = story_seed(strongest.seed)
            seeds = [seed_for(own, "noise", number) for number in range(len(given))]
            columns = [self._files(self._paint(given, seeds, each)) for each in settings]
        return [
            (path, f"alpha {alpha:g}: {caption}")
            for row in zip(*columns, strict=True)
            for alpha, (path, caption) in zip(values, row, strict=True)
        ]

    def export_story(self, story: str, kind: Kind, title: str) -> str:
        """Make a file of a story to take away.

        Args:
            story: The story file as JSON text, from tell_story or from the page.
            kind: A PNG as "strip", "grid", "comic" or "storybook"; a "pdf"; a "gif"; "frames" (a zip); "story" (JSON).
            title: Stands above pages and PDF; may be empty.

        Returns:
            The file.
        """
        with refusals("This story cannot be exported"):
            file = read_story_json(story)
            return write_file(*export(file.story, kind, title[:200], file.settings))

    def _settings(
        self,
        seed: float,
        alpha: float | None = None,
        steps: float | None = None,
        guidance: float | None = None,
        temperature: float | None = None,
        adapter: str | None = None,
    ) -> Settings:
        given = [seed, alpha, steps, guidance, temperature, adapter]
        defaults = self.defaults.__dict__.values()
        settings = checked_settings(
            *(default if value is None else value for value, default in zip(given, defaults, strict=True)),
            self.adapters,
        )
        own = self._beside(self.defaults, settings.lora_alpha, settings.adapter)
        if steps is None:
            settings = replace(settings, num_inference_steps=own.num_inference_steps)
        if guidance is None:
            settings = replace(settings, guidance_scale=own.guidance_scale)
        return settings

    def _beside(self, settings: Settings, alpha: float, adapter: str | None = None) -> Settings:
        """The same under another alpha or adapter: at alpha 0 there is the base, which is not painted in few steps."""
        name = adapter or settings.adapter
        steps, guidance = painting.sampling_beside(self.model, settings, name, alpha)
        return replace(settings, lora_alpha=alpha, num_inference_steps=steps, guidance_scale=guidance, adapter=name)

    def _captions(self, text: str) -> list[str]:
        return [checked_caption(f"caption {number}", each) for number, each in enumerate(captions_of(text or ""), 1)]

    def _next(self, captions: list[str], settings: Settings, number: int | None = None) -> str:
        return painting.write_caption(self.model, tuple(captions), settings.seed, settings.temperature, number)

    def _paint(self, captions: list[str], seeds: list[int], settings: Settings) -> list[Frame]:
        recipes = tuple(
            Recipe(
                caption,
                seed,
                settings.lora_alpha,
                settings.num_inference_steps,
                settings.guidance_scale,
                settings.adapter,
            )
            for caption, seed in zip(captions, seeds, strict=True)
        )
        steps = painting.paint(self.model, recipes, previews=False)
        pictures = [step for step in steps if isinstance(step, Painted)]
        return [frame_of(recipe, picture) for recipe, picture in zip(recipes, pictures, strict=True)]

    def _files(self, frames: list[Frame]) -> Pictures:
        return [
            (write_file(f"frame-{number:02}.png", frame_png(frame)), frame.caption)
            for number, frame in enumerate(frames, 1)
        ]


def add_endpoints(handlers: Handlers, painter: dict[str, Any]) -> None:
    """Give the page its public endpoints. Their components are on no screen; they carry names, types and defaults."""
    endpoints, defaults = Endpoints(handlers), handlers.defaults
    public = {**painter, "api_visibility": "public"}
    with gr.Row(visible=False):
        opening = gr.Textbox("", label="Opening captions, one a line", lines=3)
        captions = gr.Textbox("", label="Captions, one a line", lines=3)
        given = gr.Textbox(label="Captions of the story, one a line", lines=3)
        caption = gr.Textbox(label="Caption")
        frames = gr.Number(4, label="Frames in all", precision=0)
        seed = gr.Number(defaults.seed, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
        alpha = gr.Number(defaults.lora_alpha, label="Alpha")
        alphas = gr.Textbox("0, 10, 32", label="Alphas")
        steps = gr.Number(None, label="Steps", precision=0)
        guidance = gr.Number(None, label="Guidance")
        temperature = gr.Number(defaults.temperature, label="Boldness of captions")
        adapter = gr.Dropdown(handlers.adapters, value=defaults.adapter, label="Adapter")
        suggestions = gr.Number(3, label="Suggestions", precision=0)
        story = gr.Textbox(label="Story file, as JSON text")
        kind = gr.Dropdown(list(KINDS), value="comic", label="Kind of file")
        title = gr.Textbox("", label="Title")
        pictures = gr.Gallery(label="Frames", format="png")
        picture = gr.Image(label="Picture", type="filepath", format="png")
        told, texts, file = gr.Textbox(label="Story file"), gr.JSON(label="Suggestions"), gr.File(label="File")
        button = gr.Button("API")
    made = [seed, alpha, steps, guidance, temperature, adapter]
    for function, inputs, outputs in (
        (endpoints.tell_story, [opening, frames, *made], [pictures, told]),
        (endpoints.next_caption, [captions, seed, temperature, suggestions], texts),
        (endpoints.paint_frame, [caption, seed, alpha, steps, guidance, adapter], picture),
        (endpoints.compare_alpha, [given, alphas, seed, steps, guidance, adapter], pictures),
        (endpoints.export_story, [story, kind, title], file),
    ):
        button.click(function, inputs, outputs, api_name=function.__name__, **public)
