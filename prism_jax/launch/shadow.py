"""Shadow runs: on a fraction of real calls, run the original too and report how far results differ.

In: a function's original jaxpr, its inputs and the outputs of its plans. Out: nothing; a warning
where an output differs by more than rounding explains, and a record of every comparison. The draw
and the comparison are part of the compiled function; nothing of jax runs inside a callback.
Invariant: the outputs are not touched, and calls that are not drawn pay for one random number.
"""

from __future__ import annotations

import collections
import functools
import random
import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prism_jax import compat, errors

#: The last comparisons: (function, output number, relative difference).
records: collections.deque[tuple[str, int, float]] = collections.deque(maxlen=10_000)
_draws = random.Random(0)
_lock = threading.Lock()

#: A difference that a reordered sum may make, in ulps of the output's dtype.
_ULPS = 1024


def difference(got: Any, want: Any) -> jax.Array:
    """The largest |got - want| over the largest finite |want|; inf where NaN or inf are misplaced.

    Zero for empty arrays and for dtypes that have no difference.

    >>> float(difference(jnp.array([1.0, 4.0]), jnp.array([1.0, 2.0])))
    1.0
    """
    got, want = jnp.asarray(got), jnp.asarray(want)
    known = jnp.issubdtype(want.dtype, jnp.number) or want.dtype == jnp.bool_
    if not known or want.size == 0:
        return jnp.float32(0)
    if not jnp.issubdtype(want.dtype, jnp.inexact):
        return jnp.where(jnp.any(got != want), jnp.float32(1), jnp.float32(0))
    size = jnp.abs(want)
    finite = jnp.isfinite(size)
    scale = jnp.max(jnp.where(finite, size, 0))
    apart = jnp.max(jnp.where(finite, jnp.abs(got - want), 0)).astype(jnp.float32)
    same = jnp.all(finite | (got == want) | (jnp.isnan(got) & jnp.isnan(want)))
    ratio = apart / jnp.where(scale > 0, scale, 1).astype(jnp.float32)
    return jnp.where(same & ~jnp.isnan(ratio), ratio, jnp.inf)


def compare(
    closed: compat.ClosedJaxpr,
    args: Sequence[Any],
    outs: Sequence[Any],
    fraction: float,
    name: str,
) -> None:
    """Stage the comparison of `outs` with the original's outputs into the function being traced.

    Args:
      closed: the original program.
      args: its inputs.
      outs: what the rewritten program returned for them.
      fraction: the share of calls that are compared, 0 to 1.
      name: the function's name, for the report.
    """
    places = [n for n, aval in enumerate(closed.out_avals) if isinstance(aval.dtype, np.dtype)]
    args, outs = jax.lax.stop_gradient((list(args), [outs[place] for place in places]))

    def run(args: list[Any], outs: list[Any]) -> None:
        wanted = compat.evaluate(closed, *args)
        found = [difference(out, wanted[n]) for out, n in zip(outs, places, strict=True)]
        limits = [_limit(closed.out_avals[n].dtype) for n in places]
        jax.debug.callback(functools.partial(_report, name, places, limits), *found)

    drawn = jax.pure_callback(lambda: _draw(fraction), jax.ShapeDtypeStruct((), np.bool_))
    jax.lax.cond(drawn, run, lambda args, outs: None, args, outs)


def _draw(fraction: float) -> np.bool_:
    with _lock:
        return np.bool_(_draws.random() < fraction)


def _limit(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) * _ULPS if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _report(name: str, places: list[int], limits: list[float], *found: Any) -> None:
    for place, limit, value in zip(places, limits, found, strict=True):
        error = float(np.max(value))
        records.append((name, place, error))
        if error > limit:
            warning = errors.ShadowMismatch(where=name, output=place, error=error, limit=limit)
            errors.warn(warning, ("shadow", name, str(place)))
