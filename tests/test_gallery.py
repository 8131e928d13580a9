"""The gallery: its files follow from its plans; its kernels compile, fit, are right when small."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from prism_jax import extract
from prism_jax.bench import gallery, suites
from prism_jax.device import row as device_row
from prism_jax.emit import EmittedKernel, emit
from prism_jax.emit.binary import SPILLED, Binary, fits
from prism_jax.emit.compile import compile_many
from prism_jax.emit.interpret import interpret
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.plan_text import parse_plan, print_plan
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.lexer import TextError
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph
from prism_jax.ir.text import parse_program, parse_sgraph, print_program, print_sgraph
from prism_jax.options import Options
from prism_jax.verify.shrink import shrink

FOUND = Path(__file__).parents[1] / "kernels" / "found"
FOLDERS = sorted(path.parent for path in FOUND.rglob("plan.txt"))
NAMES = [str(folder.relative_to(FOUND)) for folder in FOLDERS]


def plan_of(folder: Path) -> Plan:
    return parse_plan((folder / "plan.txt").read_text())


def test_every_suite_is_there() -> None:
    for suite in gallery.SUITES:
        assert any(folder.name.startswith(f"{suite}-") for folder in FOLDERS), suite


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_files_follow_from_the_plan(folder: Path) -> None:
    """`python -m prism_jax kernels` brings them up to date."""
    made = gallery.sources(plan_of(folder))
    kept = {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".py", ".txt")}
    assert kept == made
    for name, text in made.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_evidence_is_for_this_plan(folder: Path) -> None:
    plan = plan_of(folder)
    evidence = json.loads((folder / "evidence.json").read_text())
    assert evidence["sgraph"] == plan.sgraph.digest
    assert dict(evidence["sizes"]) == dict(plan.numbers)


@pytest.mark.parametrize(
    ("name", "capability"),
    [("H100", 90), pytest.param("A100", 80, marks=pytest.mark.long)],
)
def test_every_kernel_compiles_and_fits(name: str, capability: int) -> None:
    """On the device that a plan was made for it fits and hardly spills; elsewhere it compiles."""
    plans = [(row, plan_of(f)) for row, f in zip(NAMES, FOLDERS, strict=True)]
    kernels = [(row, plan, k) for row, plan in plans for k in emit(plan).kernels]
    sources = [kernel.source for _, _, kernel in kernels]
    made = compile_many(sources, capability, workers=2)
    for (row, plan, _), binary in zip(kernels, made, strict=True):
        assert isinstance(binary, Binary), f"{row}: {binary}"
        if plan.device == name:
            assert fits(binary, device_row(name)) is None, row
            assert binary.stack <= SPILLED, f"{row} spills {binary.stack} bytes"


def launch(kernel: EmittedKernel) -> Any:
    types = [(tuple(map(int, t.shape)), numpy_dtype(t.dtype)) for t in kernel.results]
    return lambda *operands: interpret(kernel.source, kernel.grid, operands, types)


@cache
def programs() -> dict[str, Any]:
    """The program of every region of the suites, by folder name."""
    found: dict[str, Any] = {}
    for suite in gallery.SUITES:
        for row in suites.rows(suite):
            if "gpu" not in row.platforms or row.function is None:
                continue
            arrays = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in row.operands]
            cut = extract.extract(jax.make_jaxpr(row.function)(*arrays), Options(), row.name)
            steps: Iterator[Any] = (s for s in cut.steps if hasattr(s, "program"))
            for number, step in enumerate(steps):
                found[gallery.folder_of(row, number)] = step.program
    return found


TOLERANCE = {"float16": 1e-2, "bfloat16": 8e-2, "float32": 5e-5}
KINDS = sorted({re.sub(r"-[bnrs]\d.*", "", folder.name) for folder in FOLDERS})
"""One folder for each program of a suite: sizes shrink anyway."""


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_small_instances_in_the_interpreter(kind: str, dtype: str) -> None:
    """Odd sizes, sizes below a tile and size 1, against the program in float64."""
    folder = next(f for f in FOLDERS if f.name.startswith(kind))
    plan, program = plan_of(folder), programs()[folder.name]
    program, sgraph = (retyped(x, dtype) for x in (program, plan.sgraph))
    draw = np.random.default_rng(len(kind))
    small = shrink(program, sgraph, draw)
    inputs = [draw.normal(size=tuple(map(int, t.shape))) for t in small.program.inputs]
    dtypes = [numpy_dtype(t.dtype) for t in small.program.inputs]
    given = [x.astype(d) for x, d in zip(inputs, dtypes, strict=True)]
    names = [t.name for t in small.program.inputs]
    wanted = evaluate(small.program, dict(zip(names, given, strict=True)))
    sizes = tuple(sorted(small.symbols.items()))
    made = Plan(small.sgraph, "triton", "H100", sizes, plan.schedules)
    got = emit(made).launched(launch)(*given)
    for a, b in zip(got, wanted, strict=True):
        b = np.asarray(b, np.float64)
        scale = max(1.0, float(np.max(np.abs(b), initial=0.0)))
        error = float(np.max(np.abs(np.asarray(a, np.float64) - b), initial=0.0))
        assert error <= TOLERANCE[dtype] * scale, folder.name


def retyped(what: Program | SGraph, dtype: str) -> Any:
    """The program or sGraph with another dtype in the place of float16 and float32 of tensors and
    operands; what it computes in stays.
    """
    short = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}[dtype]
    text = print_program(what) if isinstance(what, Program) else print_sgraph(what)
    text = re.sub(r": f(16|32)\[", f": {short}[", text)
    text = re.sub(r"precision f(16|32) f32 f(16|32) ", f"precision {short} f32 {short} ", text)
    if dtype == "float32":  # one TF32 pass has its own tests and its own error
        text = text.replace(" f32 default", " f32 highest")
    return parse_program(text) if isinstance(what, Program) else parse_sgraph(text)


def test_plan_texts_that_are_none() -> None:
    plan = plan_of(FOLDERS[0])
    text = print_plan(plan)
    for wrong in ("", text.replace("plan ", "plane ", 1), text.replace("sizes ", "size ", 1),
                  text.replace("num_warps", "warps", 1)):  # fmt: skip
        with pytest.raises(TextError):
            parse_plan(wrong)
    every = Schedule(2, 5, "mulsum", cut=True, exp2=False, swizzle=8, hints=True)
    changed = replace(plan, schedules=(every,) * len(plan.schedules), unroll=3)
    assert parse_plan(print_plan(changed)) == changed
