"""The page itself: what is on it, and which control does what."""

from __future__ import annotations

import html
import secrets
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from sagan_pipeline import SAGANetsPipeline

from . import painting
from .api import add_endpoints
from .desk import Desk
from .editing import MAX_FRAMES, MAX_SEED, MOST, Settings
from .files import WRITTEN
from .handlers import Handlers
from .theme import look
from .words import strength_of, unknown_words, warning_about


HERE = Path(__file__).parent
ADAPTERS = HERE.parent / "lora_weights"
MAX_ALPHA = int(MOST["lora_alpha"])
PAPERS_ALPHA = 10  # what the paper found best at inference
FIRST_SEED = 7
REST = 4 * 3600  # seconds that an untouched story stays on the server
STORAGE_KEY, STORAGE_SECRET = "saganets-story", "saganets"  # nothing secret is in there, and a restart may not lose it
OPENINGS = [
    "Gus is in the kitchen. He is talking to Mabel.",
    "Nell and Otto are driving in the car.\nNell and Otto are on the beach. Otto is laughing.",
    "Rumble is sleeping in the living room.\nPip is in the living room. She is holding a bone.",
    "Mr Flagg is in his office. He is angry.",
]
# where the page is one column, the story is far below the button that starts it
TO_THE_BOARD = "() => { if (innerWidth < 800) document.querySelector('#board').scrollIntoView(); }"
WHAT_SCORES_ARE = (
    "A small network that has only seen real frames of the show says whom it sees, and where. It knows the cast and "
    "the places; not what anybody does or wears, nor anybody else. Likeness is the cosine of its features."
)
TAKE_AWAY = [
    ("Strip", "strip"),
    ("Comic page", "comic"),
    ("Grid page", "grid"),
    ("Storybook", "storybook"),
    ("PDF", "pdf"),
    ("GIF", "gif"),
    ("Frames (zip)", "frames"),
    ("Story file", "story"),
]


def build_demo(pipe: SAGANetsPipeline, adapters: Path | None = ADAPTERS, own: str | None = None) -> gr.Blocks:
    """The page over `pipe`. Launch it with `**look()`, since Gradio 6 takes theme and style there.

    Args:
        pipe (`SAGANetsPipeline`): under its own adapter.
        adapters (`Path`, *optional*): folder of adapters to choose from; those for another base are left out.
        own (`str`, *optional*): what the pipeline's own adapter is called.
    """
    model = painting.register(pipe, adapters, own or "default")
    painting.warm_up(model)
    names = list(painting.MODELS[model])
    defaults = Settings(
        seed=FIRST_SEED,
        lora_alpha=min(pipe.default_lora_alpha, MOST["lora_alpha"]),
        num_inference_steps=min(pipe.default_sampling[0], int(MOST["num_inference_steps"])),
        guidance_scale=min(pipe.default_sampling[1], MOST["guidance_scale"]),
        temperature=min(pipe.config.default_temperature, MOST["temperature"]),
        adapter=names[0],
    )
    handlers = Handlers(model, defaults, names)
    vocabulary, trained = pipe.vocabulary, pipe.trained_lora_alpha
    strength = partial(strength_of, rank=pipe.lora_rank, trained_alpha=trained)
    openings = [text for text in OPENINGS if vocabulary and not unknown_words(text, vocabulary)]

    with gr.Blocks(title="SAGANets", delete_cache=(3600, 24 * 3600)) as demo:
        demo.temp_file_sets.append(WRITTEN)
        desk = gr.State(None, time_to_live=REST, delete_callback=_leave)
        kept = gr.BrowserState("", storage_key=STORAGE_KEY, secret=STORAGE_SECRET)
        gr.HTML(
            "<header><h1>SAGANets</h1>"
            "<p>Write how a story opens. It is continued and painted, and you direct.</p></header>",
            elem_id="head",
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                opening = gr.Textbox(
                    label="How does your story open?",
                    info="One to three captions, one a line.",
                    value=openings[0] if openings else "",
                    lines=3,
                    max_lines=8,
                    elem_id="opening",
                )
                warning = gr.Markdown(visible=False, elem_id="warning")
                if pipe.cast or pipe.places:
                    gr.HTML(_chips(pipe), js_on_load=_read("chips.js"), apply_default_css=False, elem_id="chips")
                with gr.Row():
                    tell = gr.Button("Tell the story", variant="primary", min_width=140, elem_id="tell")
                    surprise = gr.Button("Surprise me", min_width=140, elem_id="surprise")
                num_frames = gr.Slider(
                    1, MAX_FRAMES, value=pipe.config.default_num_frames, step=1, label="Frames", elem_id="frames"
                )
                if openings:
                    gr.Examples(openings, inputs=opening, label="Openings to try", elem_id="openings")
                with gr.Accordion("Bring pictures, or a story made here", open=False, elem_id="bring"):
                    files = gr.File(
                        label="Pictures or a story file",
                        file_count="multiple",
                        file_types=[".png", ".jpg", ".jpeg", ".webp", ".json"],
                        height=140,
                        elem_id="files",
                    )
                    brought = gr.Markdown("", elem_id="brought")
                with gr.Accordion("Settings", open=False, elem_id="settings"):
                    with gr.Row():
                        seed = gr.Number(
                            FIRST_SEED,
                            label="Seed",
                            precision=0,
                            minimum=0,
                            maximum=MAX_SEED,
                            min_width=120,
                            elem_id="seed",
                        )
                        dice = gr.Button("\u2684 Roll", min_width=90, elem_id="dice")
                    keep_seed = gr.Checkbox(
                        True, label="Keep this seed", info="Otherwise each story rolls its own.", elem_id="keep-seed"
                    )
                    adapter = gr.Dropdown(
                        names, value=names[0], label="Adapter", visible=len(names) > 1, elem_id="adapter"
                    )
                    steps = gr.Slider(
                        1,
                        MOST["num_inference_steps"],
                        value=defaults.num_inference_steps,
                        step=1,
                        label="Steps",
                        info="More are slower, and somewhat finer.",
                        elem_id="steps",
                    )
                    guidance = gr.Slider(
                        0,
                        MOST["guidance_scale"],
                        value=defaults.guidance_scale,
                        step=0.5,
                        label="Guidance",
                        info="How closely a picture keeps to its caption.",
                        elem_id="guidance",
                    )
                    temperature = gr.Slider(
                        0,
                        MOST["temperature"],
                        value=defaults.temperature,
                        step=0.1,
                        label="Boldness of captions",
                        info="0 writes the likeliest words.",
                        elem_id="temperature",
                    )
                    scored = gr.Checkbox(
                        False,
                        label="Scores under the pictures",
                        info=WHAT_SCORES_ARE,
                        visible=handlers.judged,
                        elem_id="scored",
                    )
                with gr.Accordion("What this model can, and cannot", open=False, elem_id="can"):
                    gr.Markdown(_what_it_can(pipe))
            with gr.Column(scale=9, min_width=320):
                with gr.Group():
                    alpha = gr.Slider(
                        0,
                        MAX_ALPHA,
                        value=defaults.lora_alpha,
                        step=1,
                        label="Alpha: how much of the show is in the pictures",
                        info=f"0: the base model. {PAPERS_ALPHA}: the paper's choice. {trained:g}: as trained. "
                        "Moving it repaints the story.",
                        elem_id="alpha",
                    )
                strength_line = gr.Markdown(strength(defaults.lora_alpha), elem_id="strength")
                board = gr.HTML(
                    None,
                    html_template=_read("board.html"),
                    js_on_load=_read("board.js"),
                    apply_default_css=False,
                    vocabulary=" ".join(vocabulary),  # one string, which is quick to copy
                    elem_id="board",
                )
                with gr.Accordion("Compare strengths", open=False, elem_id="compare") as comparing:
                    marks = sorted({0, PAPERS_ALPHA, trained})
                    with gr.Row(equal_height=False):
                        strengths = gr.Dropdown(
                            [f"{mark:g}" for mark in marks],
                            value=[f"{mark:g}" for mark in marks],
                            multiselect=True,
                            allow_custom_value=True,
                            label="Alphas",
                            info="Choose, or type your own.",
                            elem_id="strengths",
                        )
                        which = gr.CheckboxGroup(
                            names, value=[names[0]], label="Adapters", visible=len(names) > 1, elem_id="which"
                        )
                        scored_too = gr.Checkbox(
                            handlers.judged,
                            label="With scores",
                            info="Whom and what place a judge sees.",
                            visible=handlers.judged,
                            elem_id="scored-too",
                        )
                        side_by_side = gr.Button("Side by side", variant="primary", elem_id="side-by-side")
                    comparison = gr.HTML("", elem_id="comparison")
                    with gr.Column(visible=False, elem_id="pair") as pair_box:
                        with gr.Row():
                            row = gr.Dropdown([], label="Frame", elem_id="pair-frame")
                            left = gr.Dropdown([], label="Before", elem_id="pair-left")
                            right = gr.Dropdown([], label="After", elem_id="pair-right")
                        slider = gr.ImageSlider(
                            label="Before and after",
                            interactive=False,
                            format="png",
                            height=500,
                            elem_id="pair-slider",
                        )
                    sweep = gr.HTML(
                        None,
                        html_template=_read("sweep.html"),
                        js_on_load=_read("sweep.js"),
                        apply_default_css=False,
                        elem_id="sweep",
                    )
                    ticks = gr.Timer(0.4, active=False)
                with gr.Accordion("Take it away", open=False, elem_id="take-away"):
                    title = gr.Textbox(label="Title, for pages and PDF", max_length=120, elem_id="title")
                    with gr.Row(elem_classes="takeaway"):
                        takers = [(gr.Button(label, elem_id=f"take-{kind}"), kind) for label, kind in TAKE_AWAY]
                    taken = gr.File(label="Your file", interactive=False, height=90, visible=False, elem_id="taken")

        # whatever paints waits in one line: one picture at a time has the machine to itself
        # Gradio writes the state of every event into each component that it changes, copies all that those hold, and
        # counts their seconds sixty times in one, hidden or not: so the state goes to the desk, which is on no screen
        private: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": desk, "api_visibility": "private"}
        painter = {**private, "concurrency_id": "painter", "concurrency_limit": 1}
        # what may refuse goes through the queue too, since only then the page hears why; but it waits for nobody
        promptly = {**private, "concurrency_limit": None}
        instantly = {**private, "queue": False}
        controls = [seed, alpha, steps, guidance, temperature, adapter]

        def working(event: gr.events.Dependency) -> None:
            event.then(handlers.work, desk, [desk, board, kept], trigger_mode="multiple", **painter)

        working(demo.load(handlers.open, kept, [desk, board, *controls], **promptly))
        working(
            tell.click(
                handlers.tell, [desk, opening, num_frames, keep_seed, *controls], [desk, board, seed], **promptly
            )
        )
        working(surprise.click(handlers.surprise, [desk, num_frames, *controls], [desk, board, seed], **promptly))
        for button in (tell, surprise):
            button.click(None, js=TO_THE_BOARD, **instantly)
        working(board.act(handlers.act, desk, [desk, board, *controls], trigger_mode="multiple", **promptly))
        for moved in (alpha, adapter):
            working(
                moved.input(
                    handlers.choose,
                    [desk, *controls],
                    [desk, board, steps, guidance],
                    trigger_mode="always_last",
                    **promptly,
                )
            )
        for moved in (steps, guidance, temperature):
            working(
                moved.input(handlers.settle, [desk, *controls], [desk, board], trigger_mode="always_last", **promptly)
            )
        working(scored.input(handlers.score, [desk, scored], [desk, board], trigger_mode="always_last", **promptly))
        working(files.upload(handlers.drop, [desk, files], [desk, board, brought, *controls], **promptly))
        files.clear(handlers.drop, [desk, files], [desk, board, brought, *controls], **promptly)
        files.delete(handlers.drop, [desk, files], [desk, board, brought, *controls], **promptly)

        alpha.change(strength, alpha, strength_line, trigger_mode="always_last", **instantly)
        dice.click(lambda: secrets.randbelow(MAX_SEED + 1), None, seed, **instantly)
        opening.change(
            partial(_warn, vocabulary=vocabulary), opening, warning, trigger_mode="always_last", **instantly
        )

        compared = side_by_side.click(
            handlers.compare, [desk, strengths, which, scored_too], [desk, comparison, row, left, right], **painter
        )
        chosen = {"fn": handlers.pair, "inputs": [desk, row, left, right], "outputs": slider}
        compared.success(lambda: gr.Column(visible=True), None, pair_box, **instantly).then(**chosen, **promptly)
        for each in (row, left, right):
            each.input(**chosen, **promptly)
        comparing.expand(lambda: gr.Timer(active=True), None, ticks, **instantly)
        comparing.collapse(lambda: gr.Timer(active=False), None, ticks, **instantly)
        ticks.tick(handlers.sweep, desk, [desk, sweep, ticks], **painter)
        for button, kind in takers:
            button.click(partial(handlers.take, kind=kind), [desk, title], [desk, taken], **promptly)
        add_endpoints(handlers, painter)
    return demo


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _leave(desk: Desk | None) -> None:
    """Nobody waits for the rest of a story whose visitor is gone."""
    if desk is not None:
        desk.stopped.set()


def _warn(text: str, vocabulary: list[str]) -> dict:
    message = warning_about(text, vocabulary)
    return gr.Markdown(message, visible=bool(message))


def _chips(pipe: SAGANetsPipeline) -> str:
    """The cast and the places as buttons that write their word."""
    parts = []
    for heading, words in (("Who is there", pipe.cast), ("Where", [f"the {place}" for place in pipe.places])):
        if words:
            shown = [(html.escape(word), html.escape(word.removeprefix("the "))) for word in words]
            buttons = "".join(f'<button type="button" data-word="{word}">{label}</button>' for word, label in shown)
            parts.append(f'<h3>{heading}</h3><div class="chips" role="group" aria-label="{heading}">{buttons}</div>')
    return "".join(parts)


def _what_it_can(pipe: SAGANetsPipeline) -> str:
    """Markdown: what to expect of the model, and what not."""
    world = "It knows one small cartoon world" if pipe.cast else "It knows what it was trained on"
    return f"""
- {world}. Another character, place or action is painted as something else; words that it does not know are underlined.
- Captions are English, one or two short sentences. The captioner keeps a story going; it plans no ending.
- What no caption says may change from frame to frame.
- Small faces and hands, more than three people in a frame, and lettering are unreliable.
- The same seed and settings make the same story again. Every picture carries what it was made with.
"""


__all__ = ["OPENINGS", "build_demo", "look"]
