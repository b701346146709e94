"""The Gradio page over a `SAGANetsPipeline`."""

from .page import LOOK, build_demo


__all__ = ["LOOK", "build_demo"]
