"""The shape of the house, asserted from the source: import directions, file sizes, one place each.

Nothing here imports the package, save for one subprocess that asks what importing it pulls in.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "prism_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

# Floors of the house, lowest first. A room imports from lower floors and from itself; rooms of one
# floor do not see each other. `report` shows what the rooms found; `bench`, `demo` and `doctor` are
# users of the package.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"compat", "errors", "device", "background", "progress"}),
    frozenset({"options"}),
    frozenset({"ir"}),
    frozenset({"egraph", "axioms", "trace", "extract"}),
    frozenset({"explore", "verify"}),
    frozenset({"instantiate"}),
    frozenset({"emit", "launch", "measure"}),
    frozenset({"report"}),
    frozenset({"cache"}),
    frozenset({"pipeline", "swap"}),
    frozenset({"api"}),
    frozenset({"__init__"}),
    frozenset({"bench"}),
    frozenset({"demo", "doctor", "testing"}),
    frozenset({"__main__"}),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Neighbours on one floor that may see each other, one way each, and why.
NEIGHBOURS = {
    ("egraph", "axioms"): "an e-graph is saturated with rules, which are values of `axioms`",
    ("axioms", "egraph"): "a rule's conditions ask the analyses of the graph it is matched in",
    ("extract", "trace"): "a region is cut from what `trace` made",
    ("launch", "emit"): "what is launched is what was emitted",
    ("measure", "emit"): "what is timed is a compiled kernel; workers are those of the compiler",
    ("measure", "launch"): "a worker launches what it times",
    ("launch", "measure"): "`launch.rooms` lends the clocks to instantiation",
    ("explore", "verify"): "never: the checker must not be known to the search",
}


def _imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of everything of ours that a file imports, wherever it does."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                folder = path.relative_to(ROOT).parts[: -node.level]
                module = ".".join([*folder, *([module] if module else [])])
            if module == "prism_jax" or not node.module:
                found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, module))
    return found


def _room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def _room_of(module: str) -> str:
    parts = module.split(".")
    # `import prism_jax` itself is the whole public interface.
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    assert room in FLOOR, f"{path.name}: name the floor of the room {room!r} in this test"
    wrong: list[str] = []
    for line, module in _imports(path):
        if module != "prism_jax" and not module.startswith("prism_jax."):
            continue
        target = _room_of(module)
        if target not in FLOOR or target == room:
            continue
        lower = FLOOR[target] < FLOOR[room]
        reason = NEIGHBOURS.get((room, target), "never")
        if not lower and (FLOOR[target] != FLOOR[room] or reason.startswith("never")):
            wrong.append(f"line {line}: {room} imports {target}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_files_are_small_or_say_why(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    if lines > 400:
        document = ast.get_docstring(ast.parse(text)) or ""
        assert re.search(r"\b(long|400|one file|in one place)\b", document), (
            f"{lines} lines: the docstring has to say why this file is long"
        )


@pytest.mark.parametrize("path", [p for p in FILES if p.read_text().strip()], ids=lambda p: p.name)
def test_modules_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


# Who may read or pass on the environment, and why.
ENVIRONMENT = {
    "prism_jax/options.py": "the one place that reads settings",
    "prism_jax/emit/compile.py": "workers have an environment of their own, and triton's cache"
    " folder is told to it no other way",
    "prism_jax/measure/worker.py": "workers get one GPU and jax's defaults",
    "prism_jax/measure/on_device.py": "in a worker, XLA is told its memory limit no other way",
    "prism_jax/bench/warm.py": "the processes that it measures have settings of their own",
    "prism_jax/bench/sanitize.py": "XLA is told no other way to allocate each array by itself, so"
    " that the sanitizer sees where one ends",
    "prism_jax/bench/counters.py": "the process under the profiler shares the GPU with this one",
    "prism_jax/launch/jaxtriton.py": "puts back what importing jax_triton does to TRITON_CACHE_DIR",
}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_environment_is_read_in_one_place(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    uses = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
    ]
    assert not uses or name in ENVIRONMENT, f"{name} reads the environment in lines {uses}"


# Which file may import the internals of which library.
INTERNALS = {
    "jax._src": {"prism_jax/compat.py"},
    "jaxlib": {"prism_jax/compat.py", "prism_jax/launch/cuda.py"},
}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_internals_of_libraries_have_one_door(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for line, module in _imports(path):
        for internal, doors in INTERNALS.items():
            inside = module == internal or module.startswith(f"{internal}.")
            assert not inside or name in doors, f"{name}:{line} imports {module}"


def _texts() -> list[Path]:
    kinds = {".py", ".md", ".toml", ".txt", ".json", ".ipynb", ".svg"}
    skipped = {".git", ".venv", ".venv-newest", ".pytest_cache", ".ruff_cache", "__pycache__"}
    return sorted(
        path
        for path in ROOT.rglob("*")
        if (path.suffix in kinds or path.name == "Makefile")
        and not skipped & set(path.relative_to(ROOT).parts)
    )


def test_no_path_of_a_machine_is_in_the_project() -> None:
    # Put together here, so that this file does not hold what it forbids.
    places = "|".join(("root", "home", "work", "Users", "opt"))
    pattern = re.compile(rf"(?<![\w.~-])/(?:{places})/[a-z.]")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_nothing_is_left_open() -> None:
    words = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _texts()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(rf"\b(?:{words})\b", line)
    ]
    assert not found


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, prism_jax\n"
        "print(sorted({'sympy', 'triton', 'jax_triton', 'scipy', 'pytest'} & set(sys.modules)))\n"
    )
    assert _run(code) == ["[]"]


def _run(code: str) -> list[str]:
    """What a fresh process prints, by word."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_public_names_are_documented() -> None:
    code = (
        "import prism_jax as prism\n"
        "print([n for n in prism.__all__ if not (getattr(prism, n).__doc__ or '').strip()])\n"
        "print(sorted({'jit', 'optimize', 'explain', 'options', 'Options', 'search'}"
        " - set(prism.__all__)))\n"
    )
    assert _run(code) == ["[]", "[]"]
