"""Trace a user's function exactly as `jax.jit` would.

In: a function and the arguments of one call, some of them tracers, some static. Out: its closed
jaxpr, the arrays to evaluate it with, and the tree of its outputs. Invariants: the function runs
once; what it raises is what it raises under `jax.jit`, because `jax.jit` itself traces it; values
that are neither arrays nor scalars being traced reach it untouched.

>>> import jax.numpy as jnp
>>> traced = trace(lambda x, how: {how: x + 1.0}, (jnp.float32(1.0), "sum"), {})
>>> len(traced.jaxpr.eqns), traced.in_leaves, traced.out_tree
(1, (Array(1., dtype=float32),), PyTreeDef({'sum': *}))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from prism_jax import compat

compat.hide_frames(__file__)


@dataclass(frozen=True)
class Traced:
    """A function specialised to the types of its arguments.

    Attributes:
      jaxpr: the function of the array leaves. What it closes over are its constants.
      in_leaves: the arrays (or tracers) of this call, one per input of `jaxpr`.
      out_tree: the tree that the outputs of `jaxpr` are the leaves of.
      name: jax's name of the function.
    """

    jaxpr: compat.ClosedJaxpr
    in_leaves: tuple[Any, ...]
    out_tree: Any
    name: str


def trace(
    fun: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    static: Mapping[str, Any] | None = None,
) -> Traced:
    """The closed jaxpr of one call.

    Args:
      fun: the user's function.
      args: positional arguments, any pytrees.
      kwargs: keyword arguments, any pytrees.
      static: the `static_argnums` and `static_argnames` of the `jax.jit` that this call is being
        traced for; every other leaf is a tracer then. None: arrays and tracers are inputs, and
        whatever else is found in the arguments (numbers, texts, functions) is static.

    Raises:
      Exception: whatever `jax.jit(fun)` raises on these arguments.
    """
    name = compat.function_name(fun)
    if static is not None:
        closed, out_tree = compat.trace_jit(_fresh(fun), args, kwargs, **static)
        leaves = [leaf for leaf in jax.tree.leaves((args, kwargs)) if compat.is_tracer(leaf)]
        return Traced(closed, tuple(leaves), out_tree, name)
    flat, tree = jax.tree.flatten((tuple(args), dict(kwargs)))
    places = [place for place, leaf in enumerate(flat) if _is_input(leaf)]

    def of_inputs(*inputs: Any) -> Any:
        values = list(flat)
        for place, value in zip(places, inputs, strict=True):
            values[place] = value
        inner_args, inner_kwargs = jax.tree.unflatten(tree, values)
        return fun(*inner_args, **inner_kwargs)

    of_inputs.__name__ = name
    inputs = tuple(flat[place] for place in places)
    closed, out_tree = compat.trace_jit(of_inputs, inputs, {})
    return Traced(closed, inputs, out_tree, name)


def _is_input(leaf: Any) -> bool:
    return compat.is_tracer(leaf) or isinstance(leaf, jax.Array | np.ndarray)


def _fresh(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A new function object that calls `fun`: jax's caches never answer for an earlier closure."""

    @functools.wraps(fun, updated=())
    def traced(*args: Any, **kwargs: Any) -> Any:
        return fun(*args, **kwargs)

    traced.__name__ = compat.function_name(fun)
    return traced
