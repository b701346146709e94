"""The page itself: what is on it, which control does what, and how it looks."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

import gradio as gr

from sagan_pipeline import SAGANetsPipeline

from .telling import MAX_SEED, Teller
from .words import listed, strength_of, unknown_words, warning_about


MAX_FRAMES = 8
MAX_ALPHA = 64
PAPERS_ALPHA = 10  # what the paper found best at inference

OPENINGS = [
    "Gus is in the kitchen. He is talking to Mabel.",
    "Nell and Otto are driving in the car.\nNell and Otto are on the beach. Otto is laughing.",
    "Rumble is sleeping in the living room.\nPip is in the living room. She is holding a bone.",
    "Mr Flagg is in his office. He is angry.",
]

# galleries that show whole captions under their pictures, and all their rows; marks under the slider of alpha
CSS = """
.gradio-container { max-width: 1280px !important; margin-inline: auto !important; }
.strip .grid-wrap {
  max-height: none !important; height: auto !important; overflow: visible !important; padding-top: 36px !important;
}
.strip [data-testid="status-tracker"]:has(.error) { display: none !important; }
.strip .gallery-item { height: 100%; }
.strip .grid-container {
  grid-template-columns: repeat(2, minmax(0, 1fr)) !important;
  grid-auto-rows: auto !important;
  height: auto !important;
}
#comparison .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
.strip .thumbnail-lg {
  aspect-ratio: auto !important; height: 100% !important; display: flex !important; flex-direction: column;
  align-items: stretch; align-self: stretch; background: var(--background-fill-secondary);
}
.strip .thumbnail-lg img { aspect-ratio: 1; width: 100%; height: auto; }
.strip .caption-label {
  position: static !important; max-width: none !important; margin: 0; padding: 8px 10px 10px; border: 0;
  border-radius: 0; background: none; white-space: normal !important; overflow: visible; text-align: left;
  font-size: 15px; line-height: 1.4;
}
#warning { border-left: 4px solid var(--color-accent); padding-left: 10px; }
#dice { align-self: flex-end; }
#alpha .slider_input_container { position: relative; gap: 8px; padding-bottom: 22px; }
#alpha .min_value, #alpha .max_value { width: 24px; margin: 0; text-align: center; }
#alpha .slider_input_container::before, #alpha .slider_input_container::after {
  position: absolute; bottom: 0; transform: translateX(-50%); padding-top: 6px; font-size: 12px; line-height: 14px;
  color: var(--body-text-color-subdued);
  background: linear-gradient(currentColor, currentColor) top center / 1px 5px no-repeat;
}
#alpha .slider_input_container::before { content: "10"; left: calc(40px + (100% - 80px) * 10 / 64); }
#alpha .slider_input_container::after { content: "32"; left: calc(40px + (100% - 80px) * 32 / 64); }
@media (max-width: 640px) {
  .strip .grid-container { grid-template-columns: minmax(0, 1fr) !important; }
  #comparison .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important; }
}
"""

FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
LOOK: dict[str, Any] = {
    "theme": gr.themes.Default(primary_hue="orange", neutral_hue="stone", radius_size="lg", font=FONTS),
    "css": CSS,
}


def build_demo(pipe: SAGANetsPipeline) -> gr.Blocks:
    """The page over `pipe`. Launch it with `**LOOK`, since Gradio 6 takes theme and style there."""
    teller = Teller(pipe)
    vocabulary = pipe.vocabulary
    trained_alpha = pipe.trained_lora_alpha
    first_alpha = pipe.default_lora_alpha
    strength = partial(strength_of, rank=pipe.lora_rank, trained_alpha=trained_alpha)
    compared = (PAPERS_ALPHA, trained_alpha)
    openings = [text for text in OPENINGS if vocabulary and not unknown_words(text, vocabulary)]

    with gr.Blocks(title="SAGANets", delete_cache=(3600, 3600)) as demo:
        told = gr.State(None)
        gr.Markdown(
            "# SAGANets\nWrite how a story opens. A language model continues it, a diffusion model paints each frame."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                opening = gr.Textbox(
                    label="Opening captions, one a line",
                    info="Leave it empty, and the captioner opens the story itself.",
                    value=openings[0] if openings else "",
                    lines=3,
                    max_lines=8,
                    elem_id="opening",
                )
                warning = gr.Markdown(visible=False, elem_id="warning")
                with gr.Row():
                    tell = gr.Button("Tell the story", variant="primary", min_width=120, elem_id="tell")
                    stop = gr.Button("Stop", min_width=120, elem_id="stop")
                if openings:
                    gr.Examples(openings, inputs=opening, label="Openings to try", elem_id="openings")
                alpha = gr.Slider(
                    0,
                    MAX_ALPHA,
                    value=first_alpha,
                    step=1,
                    label="Alpha",
                    info=f"0: base model. {PAPERS_ALPHA}: the paper's choice. {trained_alpha:g}: as trained. "
                    "Moving it repaints the story with the same captions and seed.",
                    elem_id="alpha",
                )
                strength_line = gr.Markdown(strength(first_alpha), elem_id="strength")
                num_frames = gr.Slider(1, MAX_FRAMES, value=4, step=1, label="Frames in all", elem_id="frames")
                with gr.Row():
                    seed = gr.Number(7, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
                    dice = gr.Button("\u2684 Roll a seed", min_width=140, elem_id="dice")
            with gr.Column(scale=3, min_width=320):
                story = _strip("The story", elem_id="story")
                status = gr.Markdown("", elem_id="status")
                gr.Markdown(_what_it_knows(pipe), elem_id="knows")
                compare = gr.Button(f"Compare alpha {compared[0]:g} and {compared[1]:g}", elem_id="compare")
        comparison = _strip("The same story under two alphas", elem_id="comparison", visible=False)

        # whatever paints waits in one line: one picture at a time has the processor to itself
        painter = {"concurrency_id": "painter", "concurrency_limit": 1}
        instantly = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        telling = tell.click(
            teller.tell_story,
            [opening, num_frames, seed, alpha],
            [story, status, told],
            api_name="tell_story",
            show_progress_on=story,
            **painter,
        )
        repainting = alpha.release(
            teller.repaint,
            [alpha, told],
            [story, status, told],
            api_name="repaint",
            trigger_mode="always_last",
            show_progress_on=story,
            **painter,
        )
        comparing = compare.click(
            partial(teller.compare, alphas=compared),
            told,
            [comparison, status],
            api_visibility="private",
            show_progress_on=comparison,
            **painter,
        )
        tell.click(lambda: gr.Gallery(visible=False), None, comparison, **instantly)
        stop.click(lambda: "Stopped.", None, status, cancels=[telling, repainting, comparing], **instantly)
        alpha.change(strength, alpha, strength_line, trigger_mode="always_last", **instantly)
        dice.click(lambda: secrets.randbelow(MAX_SEED + 1), None, seed, **instantly)

        def warn(text: str) -> dict:
            message = warning_about(text, vocabulary)
            return gr.Markdown(message, visible=bool(message))

        opening.change(warn, opening, warning, trigger_mode="always_last", **instantly)
    return demo


def _strip(label: str, elem_id: str, visible: bool = True) -> gr.Gallery:
    # png, so that a downloaded frame is the very frame
    return gr.Gallery(
        label=label,
        columns=2,  # the style above says how many on which screen
        format="png",
        object_fit="contain",
        interactive=False,
        buttons=["download", "download_all", "fullscreen"],
        elem_id=elem_id,
        elem_classes="strip",
        visible=visible,
    )


def _what_it_knows(pipe: SAGANetsPipeline) -> str:
    """Markdown naming the characters and the places of the model, "" when it names none."""
    lines = []
    if cast := pipe.cast:
        lines.append(f"**Characters this model knows:** {listed(cast)}.")
    if places := pipe.places:
        lines.append(f"**Places:** {listed(places)}.")
    return "\n\n".join(lines)
