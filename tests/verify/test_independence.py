"""The checker shares no code with the search: imports are followed from file to file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = {"verify", "ir"}
"""The rooms whose code may decide what the checker says: its own, and the IR's meaning."""
HARMLESS = {"compat", "errors", "options", "device"}


def imports(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("prism_jax"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prism_jax"):
            yield str(node.module)
            yield from (f"{node.module}.{a.name}" for a in node.names)


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None  # a name in a module


def test_the_checker_uses_nothing_of_the_search() -> None:
    seen: set[Path] = set()
    todo = sorted((ROOT / "prism_jax" / "verify").glob("*.py"))
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += [f for m in imports(path) if (f := file_of(m)) is not None]
    rooms = {p.relative_to(ROOT / "prism_jax").parts[0].removesuffix(".py") for p in seen}
    assert rooms >= SHARED
    assert rooms <= SHARED | HARMLESS, rooms
