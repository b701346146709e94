import functools
import http.server
import io
import json
import re
import tarfile
import threading

import numpy as np
import pytest
from torch.utils.data import DataLoader

from train.data.flintstones import FlintstonesRelease
from train.data.shard import main, write_shards
from train.data.stories import StoryImageDataset, StoryLoader, collate


@pytest.fixture
def release(release_folder):
    return FlintstonesRelease(release_folder)


@pytest.fixture
def shards(release, tmp_path):
    return write_shards(release, tmp_path / "shards", shard_bytes=16 * 16 * 3 * 3 * 7).parent


def same(a, b):
    assert a.splits == b.splits and a.records == b.records
    for id in a.records:
        assert np.array_equal(a.frames(id), b.frames(id))
        assert np.array_equal(a.frame(id, 1), b.frame(id, 1))


def test_a_release_comes_back_from_its_shards(release, shards):
    again = FlintstonesRelease(shards)
    assert again.layout.name == "shards" and len(list(shards.glob("*.tar"))) == 5
    same(release, again)
    assert again.stories("train") == release.stories("train")
    assert sorted(path.name for path in shards.iterdir() if path.suffix != ".tar") == [
        "flintstones_annotations_v1-0.json",
        "shards.json",
        "train-val-test_split.json",
    ]


def test_the_shards_are_plain_webdataset_tars(release, shards):
    seen = []
    for path in sorted(shards.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                stem, suffix = member.name.split(".")
                seen.append(stem) if suffix == "npy" else None
                content = tar.extractfile(member)
                if suffix == "npy":
                    assert np.array_equal(np.load(io.BytesIO(content.read())), release.frames(stem))
                else:
                    assert json.load(content)["caption"] == release.clip(stem).caption
    assert seen == sorted(release.records)


def test_the_same_release_gives_the_same_bytes(release, shards, tmp_path):
    again = write_shards(release, tmp_path / "again", shard_bytes=16 * 16 * 3 * 3 * 7).parent
    for path in shards.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_an_interrupted_call_goes_on(release, shards, tmp_path, monkeypatch):
    import train.data.shard as module

    write, calls = module._write_shard, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("disk full")
        write(*arguments)

    monkeypatch.setattr(module, "_write_shard", failing)
    out = tmp_path / "cut"
    with pytest.raises(OSError):
        write_shards(release, out, shard_bytes=16 * 16 * 3 * 3 * 7)
    with pytest.raises(ValueError, match="no known layout"):
        FlintstonesRelease(out)  # not yet a release
    write_shards(release, out, shard_bytes=16 * 16 * 3 * 3 * 7)
    assert len(calls) == 6  # two whole, one failed, the other three
    for path in shards.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()
    write_shards(release, out, shard_bytes=16 * 16 * 3 * 3 * 7)
    assert len(calls) == 6


def test_two_releases_are_not_mixed(release, shards, tmp_path):
    with pytest.raises(ValueError, match="another release or size"):
        write_shards(release, shards, shard_bytes=16 * 16 * 3 * 3 * 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_shards(release, tmp_path / "full")
    with pytest.raises(ValueError, match="shard_bytes"):
        write_shards(release, tmp_path / "none", shard_bytes=0)


def test_a_shard_cut_in_the_middle_is_named(shards):
    path = shards / "shard-00002.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="shard-00002.tar should have .* fetch the shard again"):
        FlintstonesRelease(shards)
    path.unlink()
    with pytest.raises(ValueError, match="shard-00002.tar should have .* there is nothing"):
        FlintstonesRelease(shards)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda index: index["shards"].update({"../secret.tar": {"bytes": 5}}), "secret"),
        (lambda index: index["clips"].update({"../x": ["shard-00000.tar", 0, 5]}), "not an index"),
        (lambda index: index["clips"].update({min(index["clips"]): ["shard-00000.tar", 0, 1 << 40]}), "not there"),
        (lambda index: index["clips"].update({min(index["clips"]): ["shard-00000.tar", -5, 4]}), "not there"),
        (lambda index: index.pop("shards"), "not an index"),
    ],
)
def test_a_hostile_index_is_refused(shards, spoil, message):
    index = json.loads((shards / "shards.json").read_text())
    spoil(index)
    (shards / "shards.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        FlintstonesRelease(shards)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A file server that knows ranges, as the Hub's does."""

    def do_GET(self):
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if match is None:
            return super().do_GET()
        start, end = int(match[1]), int(match[2]) + 1
        with open(path, "rb") as file:
            content = file.read()
        with self.server.lock:  # before the answer: who has it may look at the count
            self.server.ranges += 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{min(end, len(content)) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content[start:end])))
        self.end_headers()
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def address(shards):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranges, directory=shards))
    server.ranges, server.lock = 0, threading.Lock()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_shards_are_read_from_the_web(release, address):
    again = FlintstonesRelease(f"http://127.0.0.1:{address.server_port}/")
    same(release, again)
    assert address.ranges == 2 * len(release.records)  # one request a read, of that clip alone
    loaded = DataLoader(StoryImageDataset(again, "train", frame=0), batch_size=2, num_workers=2, collate_fn=collate)
    here = DataLoader(StoryImageDataset(release, "train", frame=0), batch_size=2, collate_fn=collate)
    for a, b in zip(loaded, here, strict=True):
        assert a["ids"] == b["ids"] and bool((a["later_frames"] == b["later_frames"]).all())


def test_a_loader_goes_on_over_the_web(release, address):
    root = f"http://127.0.0.1:{address.server_port}"
    loader = StoryLoader(StoryImageDataset(FlintstonesRelease(root), "train", seed=5), batch_size=2)
    batches = iter(loader)
    next(batches)
    state, expected = loader.state_dict(), next(batches)
    again = StoryLoader(StoryImageDataset(FlintstonesRelease(root), "train", seed=5), batch_size=2)
    again.load_state_dict(state)
    got = next(iter(again))
    assert got["ids"] == expected["ids"] and bool((got["first_frame"] == expected["first_frame"]).all())


def test_a_shard_cut_on_the_web_is_named(address, shards):
    release = FlintstonesRelease(f"http://127.0.0.1:{address.server_port}")
    path = shards / "shard-00004.tar"
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(ValueError, match="shard-00004.tar.*ends early|shard-00004.tar.*whole"):
        release.frames(max(release.records))


def test_no_shards_at_an_address(address):
    with pytest.raises(ValueError, match="shards.json is missing"):
        FlintstonesRelease(f"http://127.0.0.1:{address.server_port}/nothing")


def test_the_command(release_folder, tmp_path, capsys):
    main([str(release_folder), str(tmp_path / "out")])
    assert "shards.json" in capsys.readouterr().out
    same(FlintstonesRelease(release_folder), FlintstonesRelease(tmp_path / "out"))
    with pytest.raises(SystemExit) as failure:
        main([str(tmp_path), str(tmp_path / "out2")])
    assert failure.value.code == 1 and "no known layout" in capsys.readouterr().err
