"""Random programs: every back end computes what the float64 oracle computes.

Emitted code rounds, so an element is compared only as far as the program itself is stable there:
the oracle is evaluated at slightly moved inputs as well, and the error may be a multiple of what
that changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_jax.emit import jnp as emit_jnp
from prism_jax.emit import lax_blocks
from prism_jax.emit.interpret import interpret
from prism_jax.emit.triton import emit_kernel
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import Axis, Pointwise, Reduce, Store
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import GridAxis, Kernel
from prism_jax.testing.arrays import program_inputs
from prism_jax.testing.programs import programs

Arrays = dict[str, Any]


def wide(program: Program) -> Program:
    """The program computed in float64 if it mentions float64 anywhere, as extraction makes it."""
    tensors = [*program.inputs, *(s.tensor for s in program.outputs)]
    dtypes = [t.dtype for t in tensors]
    dtypes += [str(n.parameter) for n in program.nodes if isinstance(n, Pointwise)]
    dtypes += [
        n.precision.accumulate for n in program.nodes if isinstance(n, Reduce) and n.precision
    ]
    return replace(program, compute="float64" if "float64" in dtypes else program.compute)


def moved(program: Program, given: Arrays, seed: int) -> Arrays:
    """The inputs with reals moved by a few units of the least precise dtype in the program."""
    draw = np.random.default_rng(seed)
    precisions = [n.precision for n in program.nodes if isinstance(n, Reduce) and n.precision]
    dtypes = [p.operand for p in precisions] + [s.tensor.dtype for s in program.outputs]
    half = any(d in ("float16", "bfloat16") for d in dtypes)
    size = 2e-2 if "bfloat16" in dtypes else 2e-3 if half else 1e-6

    def one(array: Any) -> Any:
        if not np.issubdtype(array.dtype, np.floating) and array.dtype.kind != "V":
            return array
        wide = np.asarray(array, np.float64)
        return wide * (1 + size * draw.uniform(-1, 1, wide.shape)) + size * 1e-3

    return {name: one(array) for name, array in given.items()}


def check(program: Program, given: Arrays, found: tuple[Any, ...], what: str) -> None:
    with np.errstate(all="ignore"):
        wanted = evaluate(program, given)
        others = [evaluate(program, moved(program, given, seed)) for seed in range(4)]
        for n, (store, got, want) in enumerate(zip(program.outputs, found, wanted, strict=True)):
            got = np.asarray(got)
            assert got.dtype == numpy_dtype(store.tensor.dtype), what
            assert got.shape == want.shape, what
            near = np.stack([o[n] for o in others]).astype(np.float64)
            want, got = want.astype(np.float64), got.astype(np.float64)
            change = np.max(np.abs(near - want), axis=0, initial=0.0)
            tame = np.isfinite(near).all(axis=0) & np.isfinite(want) & (np.abs(want) < 1e4)
            exact = store.value.sort != "real"
            width = np.finfo(np.float32).eps if exact else narrow(store.tensor.dtype)
            allowed = 30 * change + 8 * width * (np.abs(want) + 1e-2)
            # An integer may step where the program does, and nowhere else.
            wrong = tame & (
                (got != want) & (change == 0) if exact else np.abs(got - want) > allowed
            )
            assert not wrong.any(), f"{what}: {got[wrong][:4]} is not {want[wrong][:4]}"


def narrow(dtype: str) -> float:
    return {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-22}.get(dtype, 2.0**-20)


def kernel(number: int, item: Store, tiles: list[int]) -> Kernel:
    """A kernel for one output: all axes of its index on the grid."""
    axes: dict[Axis, None] = {}
    for index in item.index:
        axes.update(dict.fromkeys(index.axes_free))
    grid = tuple(GridAxis(a, min(t, int(a.size))) for a, t in zip(axes, tiles, strict=False))
    return Kernel(f"output{number}", grid, (), (item,))


@given(program=programs(), data=st.data())
def test_jnp(program: Program, data: st.DataObject) -> None:
    program = wide(program)
    arrays = data.draw(program_inputs(program))
    with jax.enable_x64(True):
        function = emit_jnp.emit(program, unroll=data.draw(st.sampled_from([0, 8])))
        found = jax.jit(function.call)(*(arrays[t.name] for t in program.inputs))
    check(program, arrays, found, function.source)


@given(
    program=programs(), data=st.data(), tiles=st.lists(st.sampled_from([1, 2, 4, 16]), min_size=8)
)
def test_blocked_lax(program: Program, data: st.DataObject, tiles: list[int]) -> None:
    program = wide(program)
    arrays = data.draw(program_inputs(program))
    found: list[Any] = []
    sources: list[str] = []
    with jax.enable_x64(True):
        for n, item in enumerate(program.outputs):
            function = lax_blocks.emit_kernel(kernel(n, item, tiles), program.compute)
            found += jax.jit(function.call)(*(arrays[t.name] for t in function.operands))
            sources.append(function.source)
    check(program, arrays, tuple(found), "\n".join(sources))


@given(
    program=programs(),
    data=st.data(),
    tiles=st.lists(st.sampled_from([1, 2, 4, 16]), min_size=8),
    products=st.sampled_from(["dot", "mulsum"]),
)
@settings(max_examples=40)
def test_triton(program: Program, data: st.DataObject, tiles: list[int], products: str) -> None:
    program = wide(program)
    arrays = data.draw(program_inputs(program))
    found: list[Any] = []
    sources: list[str] = []
    for n, item in enumerate(program.outputs):
        emitted = emit_kernel(kernel(n, item, tiles), program.compute, Schedule(products=products))
        types = [(tuple(map(int, t.shape)), numpy_dtype(t.dtype)) for t in emitted.results]
        operands = [arrays[t.name] for t in emitted.operands]
        sources.append(emitted.source.text)
        found += interpret(emitted.source, emitted.grid, operands, types)
    check(program, arrays, tuple(found), "\n".join(sources))
