"""Illustrated stories from a caption: the pipeline, and what it tells."""

from .loading import fastest_dtype
from .pipeline_saganets import SAGANetsPipeline, SAGANetsPipelineOutput
from .story import Frame, Story


__all__ = ["Frame", "SAGANetsPipeline", "SAGANetsPipelineOutput", "Story", "fastest_dtype"]
