"""Write a release as WebDataset shards, for data that is larger than one disk or lies on the web.

    python -m train.data.shard ROOT OUT

OUT gets tar files (`shard-00000.tar`, ...; for each clip `<id>.npy` and `<id>.json`, neighbours of an episode side by
side), the two files of annotations and split, and `shards.json`, which says where in which shard each clip's bytes
lie. A folder of shards is opened as every other layout is, from disk or, once uploaded, from
`hf://datasets/USER/NAME` or `https://HOST/PATH`.

The format is WebDataset's, so that the `webdataset` and `datasets` libraries stream the same files; we read them
ourselves, by the index, because a stream has no random access: stories overlap and would be stored five times over,
an epoch could not be shuffled but in a window, and an interrupted one would be read again from its beginning.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from train.data.annotations import ANNOTATIONS, SPLIT, episode_of, read_json
from train.data.flintstones import FlintstonesRelease
from train.data.layouts import SHARDS, check_index


SHARD_BYTES = 256 << 20  # as large as downloads are retried whole without regret
PLAN = "shards.plan"  # there until all shards are written: which release an interrupted call was writing


def write_shards(release: FlintstonesRelease, out: str | os.PathLike, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write all usable clips of a release; shards that are there already are kept, so an interrupted call goes on.

    Args:
        release (`FlintstonesRelease`): in any layout.
        out (`str | os.PathLike`): a folder of its own.
        shard_bytes (`int`): about so many bytes of frames to a shard, at least 1; a clip is never divided.

    Returns:
        `Path`: of the index.

    Raises:
        ValueError: `shard_bytes` is below 1, or `out` holds something else.
    """
    if shard_bytes < 1:
        raise ValueError(f"`shard_bytes` is {shard_bytes}, but must be at least 1.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    ids = sorted(id for split in release.splits.values() for id in split)  # a story's clips lie together
    if not ids:
        raise ValueError(f"{release.root} has no usable clip.")
    count = max(1, shard_bytes // release.frames(ids[0]).nbytes)
    plan = hashlib.sha256(f"{count}\n".encode())
    for id in ids:
        plan.update(f"{id} {release.clip(id).caption} ".encode() + release.frame(id, 0).tobytes())
    if _finished(out, plan.hexdigest()):
        return out / SHARDS
    shards, places = {}, {}
    for number, start in enumerate(tqdm(range(0, len(ids), count), desc="shards", mininterval=1.0)):
        name = f"shard-{number:05d}.tar"
        facts = out / f"{name}.json"
        if not (out / name).exists() or not facts.exists():
            _write_shard(release, ids[start : start + count], out / name, facts)
        known = json.loads(facts.read_text(encoding="utf-8"))
        shards[name] = {"bytes": known["bytes"], "sha256": known["sha256"]}
        places.update(known["clips"])
    records = [record for record in release.layout.annotations() if _id_of(record) in places]
    _write_json(out / ANNOTATIONS, records)
    _write_json(out / SPLIT, release.splits)
    index = {"format": "webdataset", "plan": plan.hexdigest(), "shards": shards, "clips": places}
    check_index(index, str(out / SHARDS))
    _write_json(out / SHARDS, index)  # last: a folder without it is not yet a release
    for name in shards:
        (out / f"{name}.json").unlink()
    (out / PLAN).unlink()
    return out / SHARDS


def _finished(out: Path, plan: str) -> bool:
    """Whether `out` holds the whole of these shards; refuses to mix two releases in one folder."""
    if (out / SHARDS).exists():
        index = read_json(out / SHARDS)
        if not isinstance(index, dict) or index.get("plan") != plan:
            raise ValueError(f"`out` {out} holds shards of another release or size; choose another folder.")
        return True
    if (out / PLAN).exists():
        if (out / PLAN).read_text(encoding="utf-8") != plan:
            raise ValueError(f"`out` {out} holds the beginning of other shards; choose another folder.")
    elif any(out.iterdir()):
        raise ValueError(f"`out` {out} is not empty; choose another folder.")
    (out / PLAN).write_text(plan, encoding="utf-8")
    return False


def _write_shard(release: FlintstonesRelease, ids: list[str], path: Path, facts: Path) -> None:
    aside = path.with_name(path.name + ".tmp")
    places = {}
    with open(aside, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for id in ids:
            buffer = io.BytesIO()
            np.save(buffer, np.ascontiguousarray(release.frames(id)))
            record = release.clip(id)
            said = {"id": id, "caption": record.caption, "setting": record.setting, "characters": record.characters}
            start = _add(tar, f"{id}.npy", buffer.getvalue())
            places[id] = [path.name, start, buffer.getbuffer().nbytes]
            _add(tar, f"{id}.json", json.dumps({**said, "episode": episode_of(id)}).encode())
    with open(aside, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    os.replace(aside, path)
    _write_json(facts, {"bytes": path.stat().st_size, "sha256": digest.hexdigest(), "clips": places})


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Append a file; returns where its first byte lies in the archive."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(content), 0  # no time: the same release gives the same bytes
    start = tar.offset + tarfile.BLOCKSIZE  # a plain header is one block
    tar.addfile(member, io.BytesIO(content))
    return start


def _id_of(record: object) -> str | None:
    id = record.get("globalID") if isinstance(record, dict) else None
    return id if isinstance(id, str) else None


def _write_json(path: Path, value: object) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    os.replace(aside, path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT", help="a release in any layout")
    parser.add_argument("out", metavar="OUT", help="folder of the shards")
    parser.add_argument("--shard_mb", type=int, default=SHARD_BYTES >> 20, help="megabytes of frames to a shard")
    args = parser.parse_args(argv)
    if args.shard_mb < 1:
        parser.error(f"--shard_mb is {args.shard_mb}, but must be at least 1")
    try:
        index = write_shards(FlintstonesRelease(args.root), args.out, args.shard_mb << 20)
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    print(f"{index}: open it with FlintstonesRelease({str(index.parent)!r})")


if __name__ == "__main__":
    main()
