"""Layouts with one npy file a clip, and annotations without any frames."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from train.data.annotations import SPLIT, check_id, read_json, read_split, tidy
from train.data.arrays import Choose, frame_of_file, frames_of_file
from train.data.layouts.base import Layout


FILE_FOLDERS = {
    "video_frames_sampled": "the FlintstonesSV bundle",
    "video_frames": "AI2's raw release, unpacked",
    "flintstones_dataset/video_frames": "AI2's raw release, unpacked",
}
STORYGPTV_FOLDER = "video_frames_sampled_4x"
STORYGPTV_SPLIT = "split.json"
STORYGPTV_CAPTIONS = "cleaned_annotations.json"


class FileFolder(Layout):
    """One npy file a clip, in `folder`; the annotation and the split file lie in the root."""

    def __init__(self, root: Path, folder: Path, name: str):
        super().__init__(root)
        self.folder, self.name = folder, name

    def present(self) -> set[str]:
        with os.scandir(self.folder) as entries:
            return {entry.name[:-4] for entry in entries if entry.name.endswith(".npy")}

    def frames(self, id: str) -> np.ndarray:
        return frames_of_file(self.folder / f"{check_id(id)}.npy")

    def frame(self, id: str, choose: int | Choose) -> np.ndarray:
        return frame_of_file(f"{self.folder}{os.sep}{check_id(id)}.npy", choose)

    def fingerprint(self, id: str) -> str:
        facts = (self.folder / f"{check_id(id)}.npy").stat()
        return f"{id} {facts.st_size} {facts.st_mtime_ns}"


class StoryGPTV(FileFolder):
    """StoryGPT-V's re-pack: `video_frames_sampled_4x/`, `split.json`, `flintstones_annotations_v1-0.json` and
    `cleaned_annotations.json`, whose captions replace the descriptions where it is there. Some copies lack
    `split.json`; the original split file in its place will do."""

    def __init__(self, root: Path):
        super().__init__(root, root / STORYGPTV_FOLDER, "StoryGPT-V's re-pack")

    def splits(self) -> dict[str, list[str]]:
        own = self.root / STORYGPTV_SPLIT
        return read_split(own if own.exists() or not (self.root / SPLIT).exists() else self.root / SPLIT)

    def annotations(self) -> list[object]:
        annotations = super().annotations()
        path = self.root / STORYGPTV_CAPTIONS
        if not path.exists():
            return annotations
        cleaned = read_json(path)
        if not isinstance(cleaned, dict):
            raise ValueError(f"{path} must hold one object of captions by clip id.")
        return [self._with_caption(record, cleaned) for record in annotations]

    @staticmethod
    def _with_caption(record: object, cleaned: dict[str, object]) -> object:
        id = record.get("globalID") if isinstance(record, dict) else None
        entry = cleaned.get(id) if isinstance(id, str) else None
        caption = entry.get("caption") if isinstance(entry, dict) else None
        return {**record, "description": caption} if isinstance(caption, str) and tidy(caption) else record


class NoFrames(Layout):
    """The annotations alone: for captions, and for training from caches when the pictures are gone."""

    name = "annotations without pictures"

    def __init__(self, root: Path):
        super().__init__(root.parent if root.is_file() else root)
        repacked = (self.root / STORYGPTV_SPLIT).is_file() and not (self.root / SPLIT).is_file()
        self.files = StoryGPTV(self.root) if repacked else Layout(self.root)

    def splits(self) -> dict[str, list[str]]:
        return self.files.splits()

    def annotations(self) -> list[object]:
        return self.files.annotations()

    def present(self) -> set[str]:
        return {id for ids in self.splits().values() for id in ids}

    def frames(self, id: str) -> np.ndarray:
        raise ValueError(f"{self.root} was opened without pictures, so that {id} has no frames here.")

    def frame(self, id: str, choose: int | Choose) -> np.ndarray:
        return self.frames(id)

    def fingerprint(self, id: str) -> str:
        raise ValueError(f"{self.root} was opened without pictures, so that {id} has no fingerprint.")
