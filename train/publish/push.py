"""Sends a folder to the Hub in one commit: the files that belong there and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2  # what huggingface_hub speaks with
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import filter_repo_objects

from sagan_pipeline.adapter_files import ADAPTER_FILE
from sagan_pipeline.loading import CUSTOM_FILE, PAINTER, PIPELINE_FILE


PARTS = (*PAINTER, "captioner", "captioner_tokenizer")
SETTINGS = ("config.json", "generation_config.json", "scheduler_config.json", "preprocessor_config.json")
WORDS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
MODEL_FILES = (
    *("README.md", "LICENSE", "model_index.json", "evaluation.json", PIPELINE_FILE, CUSTOM_FILE),
    *(ADAPTER_FILE, "lora_weights/*.safetensors", "images/*.png"),
    *(f"{part}/{name}" for part in PARTS for name in (*SETTINGS, *WORDS, "*.safetensors", "*.safetensors.index.json")),
)
SPACE_FILES = (
    *("README.md", "LICENSE", "requirements.txt", "app.py", "space.py", "studio/*", "sagan_pipeline/*.py"),
    *("sagan_pipeline/embedded/*", "sagan_pipeline/fonts/*", "lora_weights/*"),
)
NEVER = ("*__pycache__*", "*.pyc", ".*", "*/.*", "*.env", "*token")


def files_to_send(folder: Path, patterns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The files of `folder` that `patterns` allow, and those that stay here; links and what they point to stay."""
    there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or p.is_file())
    real = [name for name in there if not any(p.is_symlink() for p in _path(folder, name))]
    sent = list(filter_repo_objects(real, allow_patterns=list(patterns), ignore_patterns=list(NEVER)))
    return sent, [name for name in there if name not in sent]


def _path(folder: Path, name: str) -> Iterator[Path]:
    path = folder
    for part in Path(name).parts:
        path = path / part
        yield path


def listing(folder: Path, sent: list[str], left: list[str]) -> str:
    """What a push sends, with sizes in bytes, and what it leaves out."""
    sizes = {name: (folder / name).stat().st_size for name in sent}
    lines = [f"{size:>13,}  {name}" for name, size in sizes.items()]
    lines.append(f"{sum(sizes.values()):>13,}  in {len(sent)} files")
    return "\n".join(lines + [f"     left out  {name}" for name in left])


def push(
    folder: Path,
    repo_id: str,
    patterns: tuple[str, ...],
    message: str,
    repo_type: str = "model",
    private: bool = False,
    api: HfApi | None = None,
) -> str:
    """Send the allowed files of `folder` to the repository, which is made if need be, in one commit.

    Large files go first; a push that breaks off leaves the repository as it was, and the same call goes on with what
    is not there yet.

    Returns:
        the commit.

    Raises:
        ValueError: the Hub refuses, or does not answer; says why, in one sentence. Or `private` is asked for, and the
            repository is there and public.
    """
    api = api or HfApi()
    sent, _ = files_to_send(folder, patterns)
    try:
        sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
        api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True, **sdk)
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise ValueError(f"{repo_id} is there already and public; nothing was sent. Make it private first.")
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, folder / name) for name in sent],
            commit_message=message,
            repo_type=repo_type,
        )
    except (HfHubHTTPError, HFValidationError, httpx2.HTTPError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{repo_id} was not changed: {reason(error)} The folder {folder} is as it was; the same command goes on "
            "where this one stopped."
        ) from error
    return commit.oid


def reason(error: BaseException) -> str:
    """Why the Hub did not do as asked, in one sentence."""
    chain = [error]
    while chain[-1].__cause__ is not None or chain[-1].__context__ is not None:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    for each in chain:
        response = getattr(each, "response", None)
        status = getattr(response, "status_code", None)
        if status == 401:
            return "the Hub does not know the token (401). Log in by `hf auth login`, or set HF_TOKEN."
        if status == 403:
            return "the token may not write there (403). It needs the role `write`, and you that namespace."
        if status == 404:
            return "there is no such repository, or the token may not see it (404)."
        if status == 412:
            return "somebody else has just changed it (412)."
        if status == 429:
            return "the Hub asks to wait: too many requests (429)."
        if status is not None:
            return f"the Hub answers {status}{', its own failure' if status >= 500 else ''}."
    return f"the connection broke ({' '.join(str(error).split()) or type(error).__name__})."
