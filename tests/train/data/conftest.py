"""The layouts of FlintstonesSV, each written from a bundle by the rules of those who made it."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from train.data.annotations import ANNOTATIONS, SPLIT, stories_of


FRAMES = "video_frames_sampled"


def copy_tables(bundle: Path, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    for name in (ANNOTATIONS, SPLIT):
        shutil.copy(bundle / name, out)
    return out


def write_bundle(bundle: Path, out: Path) -> Path:
    shutil.copytree(bundle / FRAMES, copy_tables(bundle, out) / FRAMES)
    return out


def write_own_show(bundle: Path, out: Path) -> Path:
    write_bundle(bundle, out)
    (out / "made_by.json").write_text("{}")
    return out


def write_raw_folder(bundle: Path, out: Path) -> Path:
    shutil.copytree(bundle / FRAMES, copy_tables(bundle, out) / "flintstones_dataset/video_frames")
    return out


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **facts) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for fact, value in facts.items():
        setattr(member, fact, value)
    tar.addfile(member, io.BytesIO(content))


def write_archive(bundle: Path, out: Path) -> Path:
    """Clips among the other things of AI2's archive, which are no frames though some are called nearly so."""
    copy_tables(bundle, out)
    with tarfile.open(out / "flintstones_dataset.tgz", "w:gz", compresslevel=1) as tar:
        add(tar, "flintstones_dataset", type=tarfile.DIRTYPE)
        for path in sorted((bundle / FRAMES).iterdir()):
            top, id = "flintstones_dataset", path.stem
            add(tar, f"{top}/background_frames/{id}_bg.npy.npz", b"PK background")
            add(tar, f"{top}/video_frames/{id}.npy", path.read_bytes())
            add(tar, f"{top}/entity_tracking/{id}.npy", b"\x93NUMPY, but of a track")
            add(tar, f"{top}/entity_tracking/{id}_bed,_0_5.npy", b"\x93NUMPY")
            add(tar, f"{top}/entity_segmentation/{id}_walkie talkie_1_10_segm.npy.npz", b"PK" * 2000)
        add(tar, "flintstones_dataset/latest", type=tarfile.SYMTYPE, linkname="/etc")
    return out


def write_storygptv(bundle: Path, out: Path) -> Path:
    """Captions of its own beside the original annotations."""
    shutil.copytree(bundle / FRAMES, copy_tables(bundle, out) / f"{FRAMES}_4x")
    (out / SPLIT).rename(out / "split.json")
    records = json.loads((out / ANNOTATIONS).read_text())
    cleaned = {record["globalID"]: {"caption": record["description"], "segments": []} for record in records}
    (out / "cleaned_annotations.json").write_text(json.dumps(cleaned))
    for record in records:
        record["description"] = "What was before it was cleaned."
    (out / ANNOTATIONS).write_text(json.dumps(records))
    return out


def png_of(frames: np.ndarray) -> bytes:
    """As `cv2.imencode` writes RGB, which it takes for BGR: the file has red and blue swapped."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(frames)[..., ::-1].copy()).save(buffer, "PNG")
    return buffer.getvalue()


def write_hdf5_alone(bundle: Path, out: Path) -> Path:
    out.mkdir(parents=True)
    splits = json.loads((bundle / SPLIT).read_text())
    captions = {record["globalID"]: record["description"] for record in json.loads((bundle / ANNOTATIONS).read_text())}
    with h5py.File(out / "flintstones.h5", "w") as file:
        for split, stories in stories_of(splits).items():
            group = file.create_group(split)
            for j in range(5):
                images = group.create_dataset(f"image{j}", (len(stories),), dtype=h5py.vlen_dtype(np.uint8))
                for row, story in enumerate(stories):
                    images[row] = np.frombuffer(png_of(np.load(bundle / FRAMES / f"{story[j]}.npy")), np.uint8)
            texts = group.create_dataset("text", (len(stories),), dtype=h5py.string_dtype("utf-8"))
            for row, story in enumerate(stories):
                said = [captions[id].replace("\n", "").replace("\t", "").strip() for id in story]
                texts[row] = "|".join(said)
    return out


def write_hdf5(bundle: Path, out: Path) -> Path:
    return copy_tables(bundle, write_hdf5_alone(bundle, out))


WRITERS = {
    "our own show": write_own_show,
    "the FlintstonesSV bundle": write_bundle,
    "AI2's raw release, unpacked": write_raw_folder,
    "AI2's raw release, packed": write_archive,
    "StoryGPT-V's re-pack": write_storygptv,
    "AR-LDM's HDF5": write_hdf5,
    "AR-LDM's HDF5 alone": write_hdf5_alone,
}


@pytest.fixture(scope="session")
def write_layout():
    """`write_layout(name, bundle, out)` writes a bundle anew in the layout of that name."""
    return lambda name, bundle, out: WRITERS[name](bundle, out)


@pytest.fixture(scope="session")
def add_member():
    return add


@pytest.fixture(scope="session")
def make_png():
    return png_of


ARCHIVE = "flintstones_dataset.tgz"
HDF5 = "flintstones.h5"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, make_release):
    """Captions in several scripts; an annotated clip that is in no split."""
    root = make_release(tmp_path_factory.mktemp("bundle") / "show")
    records = json.loads((root / ANNOTATIONS).read_text())
    for i, text in enumerate(("猫は庭にいる。", "القطة في الفناء.", "👩‍👩‍👧 in a\tcar. ", "Gus\n\x1bsays: no.")):
        records[i]["description"] = text
    records.append(records[0] | {"globalID": "s_09_e_01_shot_000000_000074"})
    (root / ANNOTATIONS).write_text(json.dumps(records))
    return root


@pytest.fixture(scope="module")
def written(bundle, tmp_path_factory, write_layout):
    """Every layout, to be read only."""
    out = tmp_path_factory.mktemp("layouts")
    return {name: write_layout(name, bundle, out / str(i)) for i, name in enumerate(WRITERS)}


@pytest.fixture
def archive(bundle, tmp_path, write_layout):
    return write_layout("AI2's raw release, packed", bundle, tmp_path / "packed") / ARCHIVE


@pytest.fixture
def hdf5(bundle, tmp_path, write_layout):
    return write_layout("AR-LDM's HDF5 alone", bundle, tmp_path / "hdf5") / HDF5
