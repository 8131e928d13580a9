"""Hypothesis strategies for arrays, and for the inputs of a program.

Arrays of numbers that numerical code stumbles over: different scales, a common offset, heavy tails,
constant rows, one-hot rows, zeros. They shrink to zeros, then to small numbers of few values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from prism_jax.ir.nodes import FLOATS
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.verify.draws import draws

KINDS = ("zeros", "small", "normal", "offset", "heavy", "constant", "onehot")
"""Kinds of arrays of reals, simplest first."""


def shapes(rank: int | None = None, largest: int = 8) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes without empty dimensions; of rank 1 to 3 unless a rank is given."""
    ranks = st.integers(1, 3) if rank is None else st.just(rank)
    return ranks.flatmap(lambda n: st.tuples(*[st.integers(1, largest)] * n))


@st.composite
def arrays(
    draw: st.DrawFn,
    shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]],
    dtype: str | st.SearchStrategy[str] = "float32",
    *,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """NumPy arrays.

    Args:
        draw: given by Hypothesis.
        shape: the shape, or a strategy for it.
        dtype: a float, integer or bool dtype by name (also "bfloat16"), or a strategy for it.
        low: no element is below it.
        high: no element is above it.

    Raises:
        TypeError: shape and dtype have changed places.
    """
    if isinstance(shape, str) or isinstance(dtype, tuple):
        raise TypeError(
            f"arrays takes the shape first, then the dtype: arrays({dtype!r}, {shape!r})"
        )
    dtype = dtype if isinstance(dtype, str) else draw(dtype)
    shape = shape if isinstance(shape, tuple) else draw(shape)
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < draw(st.sampled_from((0.0, 0.5, 1.0)))
    if dtype not in FLOATS:
        info = np.iinfo(dtype)
        least = max(int(info.min), -10 if low is None else int(low))
        most = min(int(info.max), 10 if high is None else int(high))
        return rng.integers(least, draw(st.integers(least, most)), shape, dtype, endpoint=True)
    values = _reals(
        rng, shape, draw(st.sampled_from(KINDS)), draw(st.sampled_from((1.0, 30.0, 1e-3)))
    )
    top = float(_finfo(dtype).max)
    floor, ceiling = -top if low is None else low, top if high is None else high
    return np.clip(values, floor, ceiling).astype(numpy_dtype(dtype))


def _finfo(dtype: str) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(numpy_dtype(dtype))


def _reals(rng: np.random.Generator, shape: tuple[int, ...], kind: str, scale: float) -> Any:
    rows = (*shape[:-1], 1) if shape else ()
    match kind:
        case "zeros":
            return np.zeros(shape)
        case "small":
            return rng.integers(-2, 2, shape, endpoint=True).astype(np.float64)
        case "normal":
            return rng.standard_normal(shape) * scale
        case "offset":
            return (rng.standard_normal(shape) + 100) * scale
        case "heavy":
            return rng.standard_t(2, shape) * scale
        case "constant":
            return np.broadcast_to(rng.standard_normal(rows) * scale, shape)
        case _:
            values = np.zeros(shape)
            if shape:
                hot = rng.integers(0, shape[-1], rows)
                np.put_along_axis(values, hot, rng.standard_normal(rows) * scale, -1)
            return values


def program_inputs(program: Program) -> st.SearchStrategy[dict[str, Any]]:
    """Inputs of a program, by name: draws of the accuracy contract, in every operator's domain."""
    return st.integers(0, 2**16).flatmap(
        lambda seed: st.sampled_from(draws(seed)).map(lambda draw: draw.inputs(program))
    )
