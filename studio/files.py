"""Files that the page shows or offers: in Gradio's folder, under a name of ours, cleared away after a day."""

from __future__ import annotations

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder


WRITTEN: set[str] = set()  # for `Blocks.temp_file_sets`


def write_file(name: str, data: bytes) -> str:
    """Write a file; its path says what is in it, so that the same picture is one file."""
    path = save_bytes_to_cache(data, name, get_upload_folder())
    WRITTEN.add(path)
    return path
