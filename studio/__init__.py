"""The Gradio page over a `SAGANetsPipeline`."""

from .page import build_demo
from .theme import look


__all__ = ["build_demo", "look"]
