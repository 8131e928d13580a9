"""Evaluation in float64 at small sizes: what decides, without the checker, whether an sGraph is
wrong.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping

import numpy as np

from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph
from tests.egraph.noise import NOISE, sensitivity
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


OFFSETS = (0.0, 100.0, 3000.0)
LOST = 1000.0


def cancels(pair: Pair, graph: SGraph, sizes: Mapping[str, int]) -> bool:
    """Whether the sGraph, right over the reals, loses digits that the program keeps: with a common
    offset on every input its float64 value is off by more than `LOST` times what one unit of
    rounding on each of the program's own values does.
    """
    program = pair.program
    for offset in OFFSETS:
        given = {n: x + offset if x.dtype.kind == "f" else x for n, x in inputs(pair, 1).items()}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            expected = evaluate(program, given)
            found = evaluate_sgraph(graph, sizes, given)
            moved = sensitivity(program, given)
        for a, b, effect in zip(expected, found, moved, strict=True):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(effect)
            allowed = LOST * 2.0**-53 * (effect / NOISE + np.abs(a))
            if (np.abs(a - b) > allowed)[finite].any():
                return True
    return False
