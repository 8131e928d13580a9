"""Evaluation in float64 at small sizes: what decides, without the checker, whether an sGraph is
wrong.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import Parameter
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph
from prism_jax.ir.values import Float64
from prism_jax.verify.luck import Noisy
from tests.verify.mutants import Mutant
from tests.verify.pairs import Pair

TILES = (1, 2, 3, 16)
"""Tiles of one element, ragged ones, and one tile for all: what evaluation at small sizes tries."""

FAILURES = (AssertionError, IndexError, KeyError, ValueError, TypeError)


def inputs(pair: Pair, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for tensor in pair.program.inputs:
        shape = tuple(int(s) for s in tensor.shape)
        if tensor.dtype.startswith("int"):
            made[tensor.name] = rng.integers(-3, 9, shape).astype(tensor.dtype)
        else:
            made[tensor.name] = rng.standard_normal(shape) * (0.5, 1.0, 3.0)[seed % 3]
    return made


def is_wrong(mutant: Mutant) -> bool | None:
    """Whether evaluation in float64 differs anywhere; None where the sGraph cannot be executed.

    Three inputs at the pair's own tiles; where these agree, every combination of `TILES`.
    """
    pair = mutant.pair
    try:
        for seed in range(3):
            if differs(pair.program, mutant.sgraph, pair.sizes, inputs(pair, seed)):
                return True
    except FAILURES:
        return None
    given = inputs(pair, 1)
    for tiles in itertools.product(TILES, repeat=len(pair.sizes)):
        sizes = dict(zip(pair.sizes, tiles, strict=True))
        try:
            evaluate_sgraph(pair.sgraph, sizes, given)
        except FAILURES:
            continue  # these numbers are no instance of the right sGraph either
        try:
            if differs(pair.program, mutant.sgraph, sizes, given):
                return True
        except FAILURES:
            return None
    return False


def differs(
    program: Program, graph: SGraph, sizes: Mapping[str, int], given: dict[str, np.ndarray]
) -> bool:
    """Whether the sGraph at these sizes gives other values than the program, in float64."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = evaluate(program, given)
        found = evaluate_sgraph(graph, sizes, given)
    return not all(
        np.allclose(a, b, rtol=1e-9, atol=1e-11, equal_nan=True)
        for a, b in zip(expected, found, strict=True)
    )


CASES = ((1.0, 0.0), (1.0, 100.0), (0.01, 100.0))
"""Scale and common offset of the inputs on which conditioning is measured."""
RUNS, STEP, LOST = 3, 2.0**-30, 30.0
_EXACT = ("neg", "abs", "max", "min", "where", "eq", "ne", "lt", "le", "gt", "ge")


class _Inexact(Noisy):
    """What rounding does, made large: every operation that rounds is off by up to `STEP`, by the
    same wherever it is done on the same values. Sums are off by the same within a kernel only:
    every kernel adds in an order of its own.
    """

    def __init__(self, seed: int, kernel: int = 0) -> None:
        self.seed, self.order = seed, seed + 1000 * (1 + kernel)
        super().__init__(STEP, np.random.default_rng(seed))

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Any]) -> Any:
        """A row of the operator table; some of them do not round."""
        if op in _EXACT:
            return Float64.pointwise(self, op, parameter, args)
        return super().pointwise(op, parameter, args)

    def reduce(self, monoid: str, sort: str, array: Any, dims: tuple[int, ...]) -> Any:
        """A monoid over some dimensions; maxima do not round."""
        if monoid in ("max", "min"):
            return Float64.reduce(self, monoid, sort, array, dims)
        return super().reduce(monoid, sort, array, dims)

    def combine(self, monoid: str, sort: str, a: Any, b: Any) -> Any:
        """a (+) b."""
        if monoid in ("max", "min"):
            return Float64.combine(self, monoid, sort, a, b)
        return super().combine(monoid, sort, a, b)

    def _noise(self, value: Any) -> Any:
        self.rng = np.random.default_rng(self.seed)
        return super()._noise(value)

    def _rounding(self, x: Any) -> Any:
        own, self.seed = self.seed, self.order
        self.rng = np.random.default_rng(self.seed)
        error = super()._rounding(x)
        self.seed = own
        return error


def _in_kernels(
    graph: SGraph, sizes: Mapping[str, int], given: dict[str, np.ndarray], seed: int
) -> list[Any]:
    """The outputs, every kernel with roundings of its own."""
    tensors = {t: given[t.name] for t in graph.inputs}
    for n, node in enumerate(graph.nodes):
        one = replace(graph, inputs=tuple(tensors), nodes=(node,), outputs=node.writes)
        values = {t.name: x for t, x in tensors.items()}
        made = evaluate_sgraph(one, sizes, values, domain=_Inexact(seed, n))
        tensors |= dict(zip(node.writes, made, strict=True))
    return [tensors[t] for t in graph.outputs]


def loses(pair: Pair, graph: SGraph, sizes: Mapping[str, int]) -> float:
    """How many times as much as the program's own roundings those of the sGraph change an output
    row: about 1 where it is as well conditioned, large where it cancels, also where the same value
    is computed in two orders and the difference is used.
    """
    worst = 0.0
    for scale, offset in CASES:
        given = {
            n: scale * x + offset if x.dtype.kind == "f" else x for n, x in inputs(pair, 1).items()
        }
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            want = evaluate(pair.program, given)
            own = _moved(lambda n, g=given: evaluate(pair.program, g, domain=_Inexact(n)), want)
            other = _moved(lambda n, g=given: _in_kernels(graph, sizes, g, n), want)
        for w, a, b in zip(want, own, other, strict=True):
            if np.asarray(w).dtype.kind == "f":
                worst = max(worst, float((b / (a + STEP * _rows(w) + 1e-300)).max()))
    return worst


def _moved(run: Callable[[int], Sequence[Any]], want: Sequence[Any]) -> list[np.ndarray]:
    """Per output and row: the largest change in `RUNS` runs."""
    found = [np.zeros_like(_rows(w)) for w in want]
    for seed in range(RUNS):
        values = run(seed)
        for n, (v, w) in enumerate(zip(values, want, strict=True)):
            change = np.asarray(v, np.float64) - np.asarray(w, np.float64)
            found[n] = np.maximum(found[n], _rows(change))
    return found


def _rows(x: Any) -> np.ndarray:
    """The largest finite magnitude in each row."""
    x = np.asarray(x, np.float64)
    x = np.where(np.isfinite(x), np.abs(x), 0.0)
    return x.reshape(-1, x.shape[-1] if x.ndim else 1).max(1)
