"""The pipeline and the modules it runs with as one file, for the folder that diffusers opens alone.

diffusers copies the file that `model_index.json` names, and what that file imports from its own folder, into one
folder for the files of all models, where a `story.py` of another project would take the place of ours. One file with a
name of its own meets nobody. It is made from the modules here, never by hand.
"""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path


def joined(main: Path) -> str:
    """The source of `main` and of all modules of its folder that it imports, as one module.

    Raises:
        ValueError: the modules cannot be joined: two of them give one name to different things, or import each other
            in a circle or in a form other than `from .module import name`.
    """
    modules: dict[str, ast.Module] = {}
    _visit(main, modules, ())
    imports: dict[str, set[str]] = {}  # `from x` with the names, `import y` with none
    bodies, owners = [], {}
    for name, tree in modules.items():
        source = (main.parent / f"{name}.py").read_text(encoding="utf-8")
        bodies.append(_body(name, tree, source.splitlines(), imports, owners))
    head = [
        f'"""{ast.get_docstring(modules[main.stem], clean=False)}"""',
        "# Made by `save_pretrained` of the modules that are named below; change those.",
        "from __future__ import annotations",
        "\n".join(sorted(line for line in imports if line.startswith("import"))),
        "\n".join(f"{line} import {', '.join(sorted(imports[line]))}" for line in sorted(imports) if imports[line]),
    ]
    return "\n\n".join(head + bodies) + "\n"


def _visit(path: Path, modules: dict[str, ast.Module], above: tuple[str, ...]) -> None:
    """Parse `path` and what it imports, those first."""
    if path.stem in above:
        raise ValueError(f"{path.name} imports itself through {' and '.join(above)}.")
    if path.stem in modules:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1 or node.module is None or any(alias.asname for alias in node.names):
                raise ValueError(f"{path.name}, line {node.lineno}: accepted is `from .module import name`.")
            _visit(path.with_name(f"{node.module}.py"), modules, (*above, path.stem))
    modules[path.stem] = tree


def _body(name: str, tree: ast.Module, lines: list[str], imports: dict, owners: dict) -> str:
    """One module without its docstring and imports, which go to `imports`; `owners` knows every name so far."""
    doc = ast.get_docstring(tree)
    dropped = set(range(1, tree.body[0].end_lineno + 1)) if doc is not None else set()
    for node in tree.body:
        for bound, thing in _bound(node).items():
            if owners.setdefault(bound, thing) != thing or hasattr(builtins, bound):
                raise ValueError(f"{name}.py: {bound!r} is the name of something else already.")
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level):
            dropped.update(range(node.lineno, node.end_lineno + 1))
            if isinstance(node, ast.Import):
                imports.setdefault(ast.unparse(node), set())
            elif node.module != "__future__":
                names = {ast.unparse(alias) for alias in node.names}
                imports.setdefault(f"from {node.module}", set()).update(names)
    kept = dict(enumerate(lines, 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:  # its names are there
            for line in range(node.lineno, node.end_lineno + 1):
                kept[line] = ""
            if node.col_offset:
                kept[node.lineno] = " " * node.col_offset + "pass"
    text = "\n".join(line for number, line in kept.items() if number not in dropped).strip()
    first = (doc or "").partition("\n")[0]
    return f"# {name}.py: {first}\n\n\n" + re.sub(r"\n{4,}", "\n\n\n", text)


def _bound(node: ast.stmt) -> dict[str, str]:
    """The names that a statement gives in its module, and what it gives them to."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        module = getattr(node, "module", None)
        if getattr(node, "level", 0) or module == "__future__":
            return {}
        return {a.asname or a.name.partition(".")[0]: f"{module}.{a.name}" for a in node.names}
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name: ast.dump(node)}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    names = [name.id for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)]
    return dict.fromkeys(names, ast.dump(node))
