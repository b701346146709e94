"""How the studio looks: one theme, light and dark, and the style of what is its own."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gradio as gr

from sagan_pipeline.export import FONTS


HERE = Path(__file__).parent
BODY = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif")

PAPER = gr.themes.Color(
    name="paper",
    c50="#fdfaf4",
    c100="#f7f1e5",
    c200="#eae0cf",
    c300="#d5c7b0",
    c400="#a8987f",
    c500="#6f6353",
    c600="#5a5043",
    c700="#453d33",
    c800="#2f2922",
    c900="#231e19",
    c950="#181410",
)
CLAY = gr.themes.Color(
    name="clay",
    c50="#fdf3ea",
    c100="#fae3cf",
    c200="#f5c8a2",
    c300="#efa970",
    c400="#e78c47",
    c500="#c9601d",
    c600="#a94a10",
    c700="#8a3b0c",
    c800="#6c2f0c",
    c900="#4d230b",
    c950="#331606",
)


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=CLAY,
        secondary_hue=CLAY,
        neutral_hue=PAPER,
        radius_size="lg",
        font=BODY,
        font_mono=("ui-monospace", "DejaVu Sans Mono", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_300",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100",
        background_fill_secondary_dark="*neutral_800",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_300",
        block_shadow="none",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_400",
        input_border_color_dark="*neutral_500",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_300",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_300",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_200",
        button_primary_text_color="white",
        button_primary_text_color_dark="*neutral_950",
        button_primary_text_color_hover_dark="*neutral_950",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        button_secondary_text_color="*neutral_800",
        button_secondary_text_color_dark="*neutral_100",
        button_border_width="1px",
        slider_color="*primary_600",
        slider_color_dark="*primary_300",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        checkbox_label_text_color="*neutral_800",
        checkbox_label_text_color_dark="*neutral_100",
        error_text_color="#a01c1c",
        error_text_color_dark="#fca5a5",
    )


def style() -> str:
    """The style sheet, with the lettering inside: a page without network has its letters too."""
    letters = base64.b64encode((FONTS / "ComicNeue-Bold.woff2").read_bytes()).decode("ascii")
    face = f'@font-face{{font-family:"Comic Neue";font-weight:700;src:url(data:font/woff2;base64,{letters})}}\n'
    return face + (HERE / "style.css").read_text(encoding="utf-8")


def look() -> dict[str, Any]:
    """What Gradio 6 takes at launch."""
    return {"theme": theme(), "css": style()}
