"""What every test of lifting asks: is the program's float64 value that of the jaxpr?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax.extract import lift
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
    return np.asarray(rng.normal(size=shape), dtype)


def lifted(fun: Callable[..., Any], *args: Any, **options: Any) -> Program:
    """The program of a function of arrays, traced with 64-bit types."""
    with jax.enable_x64(True):
        return lift(jax.make_jaxpr(fun)(*args), "f", **options)


def agree(fun: Callable[..., Any], *args: np.ndarray, tolerance: float = 1e-11) -> Program:
    """Asserts that lifting keeps the value, and returns the program."""
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a) for a in args]
        jaxpr = jax.make_jaxpr(fun)(*arrays)
        program = lift(jaxpr, "f")
        want = [np.asarray(w) for w in jax.tree.leaves(jax.jit(fun)(*arrays))]
        constants = [np.asarray(c) for c in jaxpr.consts if np.shape(c) != ()]
    assert parse_program(print_program(program)).outputs == program.outputs
    names = [tensor.name for tensor in program.inputs]
    given = [np.asarray(a) for a in args]
    got = evaluate(program, dict(zip(names, [*given, *constants], strict=True)))
    assert len(got) == len(want)
    for store, w, g in zip(program.outputs, want, got, strict=True):
        assert store.tensor.shape == w.shape
        assert store.tensor.dtype == str(w.dtype)
        scale = np.max(np.abs(w[np.isfinite(w)]), initial=1.0) if w.dtype.kind == "f" else 1
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance * scale)
    return program
