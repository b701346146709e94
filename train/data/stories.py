"""The paper's `StoryImageDataset`: stories of consecutive clips, the first frame apart from the later ones; and the
loader that hands them out once an epoch, over any number of processes, and goes on exactly where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train.data.flintstones import FlintstonesRelease
from train.data.pronouns import with_pronouns


FRAME_CHOICES = ("random", "fixed", "middle")
CLIP_FRAMES = 75
SAMPLED_SPAN = (9, 69)  # the first and the last of the frames that a sampled clip keeps, of 75


class StoryImageDataset(Dataset):
    """Stories of one split.

    Args:
        release (`FlintstonesRelease`): the data.
        split (`str`): one of `release.splits`.
        num_frames (`int`): frames of a story, at least 1.
        frame (`str | int`): which frame stands for a clip: `"random"` (drawn for each story, position and epoch, as
            the literature does), `"fixed"` (drawn once for each clip, whatever story it is in), `"middle"`, or an
            index into the clip.
        seed (`int`): governs `"random"`, `"fixed"` and the prefix lengths, not negative.
        classes (`Sequence[str] | None`): the characters of labels and boxes; the show's own cast by default.
        pronouns (`bool`): write he, she and they as Make-A-Story does: see `with_pronouns`.
        max_prefix (`int | None`): the longest prefix, below `num_frames`; by default 3 as in the paper, or what fits.

    Items are dicts of
        - index: the story's number, ids, captions, settings: lists of `num_frames` strings,
        - first_frame: float32 (3, H, W) in [-1, 1],
        - later_frames: float32 (num_frames - 1, 3, H, W) in [-1, 1],
        - labels: float32 (num_frames, classes) of 0 and 1,
        - boxes: float32 (num_frames, classes, 4), x1, y1, x2, y2 in pixels of the frame; zeros where nobody is,
        - prefix_length: k ~ U{0, ..., max_prefix}, drawn for each story and epoch (paper 4.3): frame k is the target.

    Raises:
        ValueError: an argument is outside what is said above.
    """

    def __init__(
        self,
        release: FlintstonesRelease,
        split: str,
        num_frames: int = 5,
        frame: str | int = "random",
        seed: int = 0,
        classes: Sequence[str] | None = None,
        pronouns: bool = False,
        max_prefix: int | None = None,
    ):
        if isinstance(frame, bool) or not (isinstance(frame, int) or frame in FRAME_CHOICES):
            raise ValueError(f"`frame` is {frame!r}, but must be an index or one of {FRAME_CHOICES}.")
        if seed < 0:
            raise ValueError(f"`seed` is {seed}, but must not be negative.")
        self.stories = release.stories(split, num_frames)
        self.max_prefix = min(3, num_frames - 1) if max_prefix is None else max_prefix
        if not 0 <= self.max_prefix < num_frames:
            raise ValueError(
                f"`max_prefix` is {max_prefix}, but must be 0 to {num_frames - 1} in {num_frames} frames."
            )
        self.release = release
        self.frame = frame
        self.seed = seed
        self.epoch = 0
        self.classes = tuple(release.cast if classes is None else classes)
        self.pronouns = pronouns

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random frames and prefix lengths are drawn; same epoch, same draws."""
        if epoch < 0:
            raise ValueError(f"`epoch` is {epoch}, but must not be negative.")
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.stories)

    def __getitem__(self, index: int) -> dict[str, object]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` is {index}, but there are {len(self)} stories.")
        ids = self.stories[index]
        clips = [self.release.clip(id) for id in ids]
        generator = np.random.default_rng([self.seed, self.epoch, index % len(self)])
        pictures, positions = zip(*[self._picture(id, generator) for id in ids], strict=True)
        sizes = {picture.shape for picture in pictures}
        if len(sizes) > 1:
            raise ValueError(f"The frames of the story that starts at {ids[0]} differ in size: {sorted(sizes)}.")
        height, width, _ = pictures[0].shape
        frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1  # [N, 3, H, W]
        boxes = np.stack([self.release.boxes(id, at, self.classes) for id, at in zip(ids, positions, strict=True)])
        captions = [clip.caption for clip in clips]
        return {
            "index": index % len(self),
            "ids": list(ids),
            "captions": with_pronouns(captions, [clip.characters for clip in clips]) if self.pronouns else captions,
            "settings": [clip.setting for clip in clips],
            "first_frame": frames[0],
            "later_frames": frames[1:],
            "labels": torch.from_numpy(np.stack([self.release.labels(id, self.classes) for id in ids])).float(),
            "boxes": torch.from_numpy(boxes) * torch.tensor([width, height, width, height]),
            "prefix_length": int(generator.integers(self.max_prefix + 1)),
        }

    def _picture(self, id: str, generator: np.random.Generator) -> tuple[np.ndarray, float]:
        """A clip's frame, and which moment of the clip it shows, 0 to 1."""
        chosen = count = 0

        def choose(frames: int) -> int:
            nonlocal chosen, count
            count = frames
            if self.frame == "random":
                chosen = int(generator.integers(frames))
            elif self.frame == "fixed":
                chosen = int(np.random.default_rng([self.seed, *id.encode()]).integers(frames))
            elif self.frame == "middle":
                chosen = frames // 2
            elif -frames <= self.frame < frames:
                chosen = self.frame % frames
            else:
                raise ValueError(f"`frame` is {self.frame}, but clip {id} has {frames} frames.")
            return chosen

        picture = self.release.frame(id, choose)
        first, last = (0, CLIP_FRAMES - 1) if count == CLIP_FRAMES else SAMPLED_SPAN
        middle = (first + last) / 2
        return picture, (first + (last - first) * chosen / (count - 1) if count > 1 else middle) / (CLIP_FRAMES - 1)


def collate(items: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """A batch: tensors stacked, numbers as int64, lists of strings as lists of lists, one a story."""
    batch: dict[str, object] = {}
    for name, first in items[0].items():
        values = [item[name] for item in items]
        if isinstance(first, torch.Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.tensor(values) if isinstance(first, int) else values
    return batch


class StoryLoader:
    """Batches of stories, epoch after epoch, each story at most once an epoch over all processes together.

    Every epoch has its own order, drawn from (seed, epoch). What is over after the last whole global batch is left out
    of that epoch, another part in every epoch, so that all processes take the same number of steps.

    Args:
        dataset (`StoryImageDataset`): its `seed` governs the order as well.
        batch_size (`int`): stories a step of this process.
        num_processes (`int`), process_index (`int`): as `accelerate.Accelerator` has them.
        num_workers (`int`): of the `DataLoader`; 0 loads in this process.

    Raises:
        ValueError: an argument is out of range, or no whole global batch can be made.

    `state_dict()` after any batch, and `load_state_dict()` into a loader of the same dataset and batch, continues with
    the very next batch, however far the workers had read ahead.
    """

    def __init__(
        self,
        dataset: StoryImageDataset,
        batch_size: int,
        num_processes: int = 1,
        process_index: int = 0,
        num_workers: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"`batch_size` is {batch_size}, but must be at least 1.")
        if not 0 <= process_index < num_processes:
            raise ValueError(f"`process_index` is {process_index}, but must be 0 to {num_processes - 1}.")
        if len(dataset) < batch_size * num_processes:
            raise ValueError(
                f"`batch_size` {batch_size} on {num_processes} processes needs {batch_size * num_processes} stories, "
                f"but there are {len(dataset)}."
            )
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers
        self.num_processes, self.process_index = num_processes, process_index
        self.epoch = 0
        self.position = 0  # batches of this epoch that were handed out

    def __len__(self) -> int:
        """Batches of an epoch on each process."""
        return len(self.dataset) // (self.batch_size * self.num_processes)

    def batches(self) -> list[list[int]]:
        """The story numbers of this process's batches in the present epoch."""
        order = np.random.default_rng([self.dataset.seed, self.epoch]).permutation(len(self.dataset))
        whole = order[: len(self) * self.batch_size * self.num_processes]
        return whole.reshape(len(self), self.num_processes, self.batch_size)[:, self.process_index].tolist()

    def __iter__(self) -> Iterator[dict[str, object]]:
        """The rest of the present epoch; afterwards the next epoch is the present one."""
        self.dataset.set_epoch(self.epoch)
        loader = DataLoader(
            self.dataset,
            batch_sampler=self.batches()[self.position :],
            num_workers=self.num_workers,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(self.dataset.seed),  # or it draws from the global RNG
        )
        for batch in loader:
            self.position += 1
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Where it is: epoch, position (batches of the epoch handed out), and what makes the order."""
        return {"epoch": self.epoch, "position": self.position, **self._made_of()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state.

        Raises:
            ValueError: the state is of another dataset, seed, batch size or number of processes.
        """
        for name, value in self._made_of().items():
            if state[name] != value:
                raise ValueError(f"`state` has {name} {state[name]}, but this loader has {value}.")
        self.epoch, self.position = state["epoch"], state["position"]

    def _made_of(self) -> dict[str, int]:
        return {
            "seed": self.dataset.seed,
            "stories": len(self.dataset),
            "batch_size": self.batch_size,
            "num_processes": self.num_processes,
        }
