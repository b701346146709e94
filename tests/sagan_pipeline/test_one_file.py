"""The joined file: it says what the modules say, and refuses what it cannot join."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from diffusers.utils.dynamic_modules_utils import get_relative_imports

import sagan_pipeline
from sagan_pipeline.one_file import joined


HERE = Path(sagan_pipeline.__file__).parent


def write(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    return folder / "main.py"


def test_every_class_and_function_of_the_modules_is_there_as_it_was(tmp_path):
    text = joined(HERE / "pipeline_saganets.py")
    (tmp_path / "one.py").write_text(text)
    whole = {ast.dump(node) for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    for name in ("captioner", "checks", "lora", "story"):
        for node in ast.parse((HERE / f"{name}.py").read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                assert ast.dump(node) in whole, node.name
    assert "sagan_pipeline" not in [name.partition(".")[0] for name in imported(text)]
    assert get_relative_imports(tmp_path / "one.py") == []
    assert joined(HERE / "pipeline_saganets.py") == text


def imported(text: str) -> list[str]:
    nodes = list(ast.walk(ast.parse(text)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return names + [node.module for node in nodes if isinstance(node, ast.ImportFrom)]


def test_imports_are_put_together_and_inner_ones_of_modules_vanish(tmp_path):
    main = write(
        tmp_path,
        main='"""Doc."""\nimport os\nfrom .part import (\n    one,\n)\n\n'
        "def two():\n    from .part import one\n    return one + 1\n",
        part="from __future__ import annotations\nimport os\nfrom math import pi\n\none = int(pi) - 2  # kept\n",
    )
    text, space = joined(main), {}
    exec(compile(text, "joined", "exec"), space)
    assert space["two"]() == 2 and space["__doc__"] == "Doc."
    assert text.count("import os") == 1 and "# kept" in text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("from math import tau as value\n", "'value'"),
        ("value = 2\n", "'value'"),
        ("def print(): ...\n", "'print'"),
        ("from .main import value\n", "itself"),
        ("from . import other\n", "accepted is"),
        ("from .other import x as y\n", "accepted is"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, part, message):
    main = write(tmp_path, main="from .part import nothing\nvalue = 1\n", part=part, other="x = 1\n")
    with pytest.raises(ValueError, match=message):
        joined(main)
