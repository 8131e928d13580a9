"""What every test of lifting asks: is the program's float64 value that of the jaxpr?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax import compat
from prism_jax.extract import Extraction, Region, extract, lift
from prism_jax.ir.check import check_program
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.program import Program
from prism_jax.ir.text import parse_program, print_program


def draw(shape: tuple[int, ...], dtype: str = "float64", seed: int = 0) -> np.ndarray:
    """Numbers of moderate size, reproducible; positive and negative."""
    rng = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "int" in dtype:
        return rng.integers(0 if dtype.startswith("u") else -9, 9, shape).astype(dtype)
    return np.asarray(rng.normal(size=shape)).astype(dtype)


def lifted(fun: Callable[..., Any], *args: Any, x64: bool = False) -> Program:
    """The program of a function of arrays."""
    with jax.enable_x64(x64):
        return lift(jax.make_jaxpr(fun)(*args), "f")


def agree(fun: Callable[..., Any], *args: Any, tolerance: float = 1e-12) -> Program:
    """Asserts that lifting keeps the value (64-bit types), and returns the program.

    The printed program must parse back to the same nodes, too.
    """
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) for a in args]
        jaxpr = jax.make_jaxpr(fun)(*arrays)
        program = lift(jaxpr, "f")
        want = [np.asarray(w) for w in jax.tree.leaves(jax.jit(fun)(*arrays))]
        constants = [np.asarray(c) for c in compat.constants(jaxpr) if np.shape(c) != ()]
    check_program(program)
    assert parse_program(print_program(program)).outputs == program.outputs
    names = [tensor.name for tensor in program.inputs]
    got = evaluate(program, dict(zip(names, [*map(np.asarray, args), *constants], strict=True)))
    assert len(got) == len(want)
    for store, w, g in zip(program.outputs, want, got, strict=True):
        assert (store.tensor.shape, store.tensor.dtype) == (w.shape, str(w.dtype))
        if w.dtype.kind in "biu":
            np.testing.assert_array_equal(g, w)
            continue
        bound = max(tolerance, 2 * float(jnp.finfo(w.dtype).eps))  # the store rounds
        w = w.astype(np.float64)
        scale = np.max(np.abs(w[np.isfinite(w)]), initial=1.0)
        np.testing.assert_allclose(g, w, rtol=bound, atol=bound * scale)
    return program


def run_steps(closed: Any, cut: Extraction, args: list[Any]) -> list[Any]:
    """The jaxpr's outputs, by running the steps in order; regions by their original equations."""
    jaxpr = closed.jaxpr
    env = dict(zip(jaxpr.constvars, compat.constants(closed), strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for step in cut.steps:
        if isinstance(step, Region):
            values = [env[var] for var in step.invars]
            env.update(zip(step.outvars, compat.evaluate(step.jaxpr, *values), strict=True))
            continue
        for eqn in step.eqns:
            values = [compat.read(env, atom) for atom in eqn.invars]
            env.update(zip(eqn.outvars, compat.bind_equation(eqn, values), strict=True))
    return [compat.read(env, atom) for atom in jaxpr.outvars]


def cut_agrees(fun: Callable[..., Any], *args: Any, tolerance: float = 1e-5) -> Extraction:
    """Asserts that the steps of `fun` compute what `fun` does, and each program what its region."""
    closed = jax.make_jaxpr(fun)(*args)
    cut = extract(closed, None, "f")
    got = jax.jit(lambda *leaves: run_steps(closed, cut, list(leaves)))(*jax.tree.leaves(args))
    want = jax.tree.leaves(jax.jit(fun)(*args))
    assert len(got) == len(want)
    for w, g in zip(want, got, strict=True):
        assert w.dtype == g.dtype
        if isinstance(w.dtype, np.dtype):  # random keys are not numbers
            np.testing.assert_allclose(np.asarray(g), np.asarray(w), rtol=tolerance, atol=1e-5)
    for region in cut.regions:
        check_program(region.program)
        assert not compat.constants(region.jaxpr)
        assert [_type(t) for t in region.program.inputs] == [_type(v.aval) for v in region.invars]
        outputs = [_type(store.tensor) for store in region.program.outputs]
        assert outputs == [_type(var.aval) for var in region.outvars]
    return cut


def _type(array: Any) -> tuple[tuple[int, ...], str]:
    return tuple(array.shape), str(array.dtype)
