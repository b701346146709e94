"""The shapes in which FlintstonesSV lies on disk or on the web, each behind the same five questions.

| layout | recognised by | frames |
|---|---|---|
| shards of `train.data.shard` | `shards.json` | in tar files, local or behind `hf://` and `https://` |
| our own show | `made_by.json` and `video_frames_sampled/` | npy files |
| StoryGPT-V's re-pack | `video_frames_sampled_4x/` | npy files, 512 px |
| the FlintstonesSV bundle | `video_frames_sampled/` | npy files, 5 frames |
| AI2's raw release, unpacked | `video_frames/` or `flintstones_dataset/video_frames/` | npy files, 75 frames |
| AI2's raw release, packed | `flintstones_dataset.tgz` | npy files in the archive, read where they are |
| AR-LDM's HDF5 | one `.h5` or `.hdf5` file | PNG strips in it |

Where every annotation file lies is said in each class. Whatever is not of the grammar of a clip's id is never opened.
"""

from __future__ import annotations

import os
from pathlib import Path

from train.data.layouts.archive import ARCHIVES, RawArchive
from train.data.layouts.base import Layout
from train.data.layouts.files import (
    FILE_FOLDERS,
    STORYGPTV_FOLDER,
    STORYGPTV_SPLIT,
    FileFolder,
    NoFrames,
    StoryGPTV,
)
from train.data.layouts.hdf5 import ARLDM, HDF5
from train.data.layouts.shards import SHARDS, WEB, Shards, check_index


__all__ = [
    "ARCHIVES",
    "ARLDM",
    "FILE_FOLDERS",
    "HDF5",
    "SHARDS",
    "STORYGPTV_FOLDER",
    "STORYGPTV_SPLIT",
    "FileFolder",
    "Layout",
    "NoFrames",
    "RawArchive",
    "Shards",
    "StoryGPTV",
    "check_index",
    "recognise",
]


def recognise(root: str | os.PathLike) -> Layout:
    """The layout of a folder, a file or an address.

    Raises:
        ValueError: there is nothing, or nothing known; says what was looked for and what was found.
    """
    if isinstance(root, str) and "://" in root:
        if not WEB.match(root):
            raise ValueError(f"`root` is {root!r}; addresses of shards begin with hf:// or https://.")
        return Shards(root)
    path = Path(root)
    if path.is_file():
        if path.name.endswith(ARCHIVES):
            return RawArchive(path)
        if path.suffix in HDF5:
            return ARLDM(path)
        raise ValueError(f"{path} is a file; of files, {', '.join((*ARCHIVES, *HDF5))} are read.")
    if not path.is_dir():
        raise ValueError(f"{path} is no file and no folder.")
    if (path / SHARDS).is_file():
        return Shards(path)
    if (path / STORYGPTV_FOLDER).is_dir():
        return StoryGPTV(path)
    for folder, name in FILE_FOLDERS.items():
        if (path / folder).is_dir():
            made_here = folder == "video_frames_sampled" and (path / "made_by.json").is_file()
            return FileFolder(path, path / folder, "our own show" if made_here else name)
    found = sorted(os.listdir(path))
    for names, layout in ((ARCHIVES, RawArchive), (HDF5, ARLDM)):
        fitting = [name for name in found if name.endswith(names)]
        if len(fitting) == 1:
            return layout(path / fitting[0])
        if fitting:
            raise ValueError(f"{path} holds {', '.join(fitting[:8])}; say which by giving the file itself.")
    looked_for = [SHARDS, f"{STORYGPTV_FOLDER}/", *(f"{folder}/" for folder in FILE_FOLDERS), *ARCHIVES, *HDF5]
    raise ValueError(
        f"{path} is no known layout of FlintstonesSV. Looked for: {', '.join(looked_for)}. "
        f"Found: {', '.join(found[:12]) or 'nothing'}{' ...' if len(found) > 12 else ''}"
    )
