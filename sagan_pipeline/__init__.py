"""Illustrated stories from a caption: the pipeline, and what it tells."""

from .pipeline_saganets import SAGANetsPipeline, SAGANetsPipelineOutput, fastest_dtype
from .story import Frame, Story


__all__ = ["Frame", "SAGANetsPipeline", "SAGANetsPipelineOutput", "Story", "fastest_dtype"]
