"""What one unit of rounding in the inputs does to the output: how much of a row's error is luck.

In: rows of an output that would break the contract. Out: the share of the allowance they use when
  the reference's error is replaced by a typical one: LUCK times the root mean square, over random
  moves of every real input by at most one unit of rounding, of the change of the float64 oracle.
  The unit is that of the arithmetic the program asks for, or what the reference's other rows show
  it to be where that is coarser (TF32 products, float16 intermediates).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from prism_jax.ir.nodes import FLOATS
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.verify.measure import Rows
from prism_jax.verify.sample import Sample, oracle

Array: TypeAlias = Any
LUCK = 4.0
_MOVES = 8
_ROWS = 48
_STEP = 2.0**-30
"""The moves themselves: small enough for the change to be linear, large enough for float64 to see
it.
"""


def ratios(
    program: Program,
    inputs: Mapping[str, Array],
    output: int,
    sample: Sample,
    found: Rows,
    seed: int,
) -> Array:
    """(rows, 2): the share of the allowance with luck allowed for; infinite where nothing is
    excused.
    """
    result = np.full(found.ratio.shape, np.inf)
    failing = np.flatnonzero((found.ratio > 1).any(1))
    order = failing[np.argsort(-found.ratio[failing].max(1), kind="stable")]
    if len(order) > len(found.ratio) // 4 + 4:
        return result  # that many rows are no accident
    rng = np.random.default_rng([seed, 31])
    others = np.flatnonzero((found.ratio <= 1).all(1))
    others = rng.permutation(others)[:_ROWS]
    chosen = np.concatenate([order[:_ROWS], others])
    effect = _effect(program, inputs, output, sample, chosen, rng)
    unit = _unit(program, found.reference[others], effect[len(chosen) - len(others) :])
    typical = LUCK * unit * effect[: len(chosen) - len(others)]
    judged = order[:_ROWS]
    allowed = (
        found.accuracy * np.maximum(found.reference[judged], typical) + found.floor[judged, None]
    )
    with np.errstate(all="ignore"):
        result[judged] = np.where(allowed > 0, found.candidate[judged] / allowed, np.inf)
    return result


def _effect(
    program: Program,
    inputs: Mapping[str, Array],
    output: int,
    sample: Sample,
    chosen: Array,
    rng: np.random.Generator,
) -> Array:
    """(chosen rows, 2): change of the oracle per unit of relative change of the inputs; maximum and
    rms in the row.
    """
    store = program.outputs[output]
    single = Program(program.name, program.inputs, (store,), program.compute)
    few = sample.restricted(chosen) if sample.shape else sample
    real = {t.name for t in program.inputs if t.dtype in FLOATS}
    [base] = oracle(single, inputs, [few])
    squares = np.zeros((len(chosen), 2))
    for _ in range(_MOVES):
        moved = {
            name: np.asarray(array, np.float64) * (1 + _STEP * rng.uniform(-1, 1, np.shape(array)))
            if name in real
            else array
            for name, array in inputs.items()
        }
        with np.errstate(all="ignore"):
            change = np.abs(oracle(single, moved, [few])[0] - base) / _STEP
        change = np.where(np.isfinite(change), change, 0)
        squares += np.stack([change.max(1, initial=0) ** 2, (change**2).mean(1)], 1)
    return np.sqrt(squares / _MOVES)


def _unit(program: Program, reference: Array, effect: Array) -> float:
    """The unit of rounding: of the compute dtype, or the one that explains the reference's typical
    row.
    """
    unit = float(ml_dtypes.finfo(numpy_dtype(program.compute)).eps) / 2
    seen = effect[:, 1] > 0
    if seen.sum() >= 8:
        unit = max(unit, float(np.median(reference[seen, 1] / effect[seen, 1])))
    return unit
