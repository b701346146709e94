"""The Gradio page over a `SAGANetsPipeline`."""

from .page import build_demo
from .painting import in_painter
from .theme import look


__all__ = ["build_demo", "in_painter", "look"]
