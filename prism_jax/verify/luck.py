"""What one unit of rounding does to the output: how much of a row's error is luck.

In: rows of an output that would break the contract. Out: the share of the allowance they use when
  the reference's error is replaced by a typical one: LUCK times the root mean square of the change
  of the float64 oracle when every value of the user's program, from the inputs to the outputs, is
  off at random by at most one unit of rounding. That is what the user's own program would do with
  its rounding rolled again; a candidate that loses more, by cancellation say, is not excused.
  The unit is that of the arithmetic the program asks for, or what the reference's other rows show
  it to be where that is coarser (TF32 products, float16 intermediates).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from prism_jax.ir.nodes import REAL, Parameter
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program
from prism_jax.ir.values import Float64
from prism_jax.verify.effort import evaluators, work
from prism_jax.verify.measure import Rows
from prism_jax.verify.modular import mix
from prism_jax.verify.sample import Sample, oracle, sampled

Array: TypeAlias = Any
LUCK = 4.0
_MOVES = 8
_TERMS = 1 << 20
_ROWS = 48
_LONG = 1 << 22
"""Elements of a program whose moves are evaluated in threads, with a generator each."""
_BLOCK = 1 << 16
"""Elements that are hashed at a time, in a processor's own cache."""
_STEP = 2.0**-30
"""The noise itself: small enough for the change to be linear, large enough for float64 to see it.
"""


class Noisy(Float64):
    """As `Float64`, with relative noise of at most `step` on every real value that it makes.

    As with rounding, equal values made by one operator are off by the same: in a row of equal
    elements the errors add up instead of averaging out.
    """

    def __init__(self, step: float, rng: np.random.Generator) -> None:
        self.step, self.rng = step, rng

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor, as values of the sort."""
        return self._off(super().load(array, sort))

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table."""
        return self._off(super().pointwise(op, parameter, args))

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions; a sum is off by what its partial sums are rounded by."""
        total = super().reduce(monoid, sort, array, dims)
        array = np.asarray(array)
        if monoid != "sum" or not np.issubdtype(array.dtype, np.floating):
            return self._off(total)
        rest = [n for n in range(array.ndim) if n not in dims]
        flat = array.transpose([*rest, *dims]).reshape([array.shape[n] for n in rest] + [-1])
        with np.errstate(all="ignore"):
            return self._off(total + self._rounding(flat))

    def _rounding(self, x: Array) -> Array:
        """Of sums over the last dimension: in some order, in about as many lanes as steps."""
        count = x.shape[-1]
        lanes = math.isqrt(count)
        steps = -(-count // max(lanes, 1))
        if steps < 2:
            return np.zeros(x.shape[:-1])
        x = x[..., self.rng.permutation(count)]
        x = np.concatenate([x, np.zeros((*x.shape[:-1], lanes * steps - count))], -1)
        x = x.reshape(*x.shape[:-1], steps, lanes)
        running = np.cumsum(x, -2)
        error = (running * self._noise(x)).sum((-1, -2))
        last = running[..., -1, :]
        return error + (np.cumsum(last, -1) * self._noise(last)).sum(-1)

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        return self._off(super().combine(monoid, sort, a, b))

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product; term by term, as a sum, where that is small enough."""
        a, b = np.asarray(a), np.asarray(b)
        if max(a.size * b.shape[-1], b.size * a.shape[-2]) > _TERMS or a.dtype.kind != "f":
            return self._off(super().matmul(a, b))
        terms = self._off(a[..., :, :, None] * b[..., None, :, :])
        return self.reduce("sum", REAL, terms, (terms.ndim - 2,))

    def _off(self, value: Array) -> Array:
        value = np.asarray(value)
        if not np.issubdtype(value.dtype, np.floating):
            return value
        with np.errstate(all="ignore"):
            return value * (1 + self._noise(value))

    def _noise(self, value: Array) -> Array:
        """From -step to step, the same for equal values."""
        salt = np.uint64(self.rng.integers(1 << 62))
        bits = np.ascontiguousarray(value, np.float64).view(np.uint64).reshape(-1)
        noise = np.empty(bits.size)
        for start in range(0, bits.size, _BLOCK):
            some = slice(start, start + _BLOCK)
            noise[some] = self.step * (mix(bits[some] ^ salt).astype(np.float64) * 2.0**-63 - 1)
        return noise.reshape(value.shape)


def ratios(
    program: Program,
    inputs: Mapping[str, Array],
    output: int,
    sample: Sample,
    found: Rows,
    seed: int,
    many: bool = False,
) -> Array:
    """(rows, 2): the share of the allowance with luck allowed for; infinite where nothing is
    excused. That is so where more than a quarter of the rows fail, unless `many` are asked about:
    then the worst speak for the rest.
    """
    result = np.full(found.ratio.shape, np.inf)
    failing = np.flatnonzero((found.ratio > 1).any(1))
    order = failing[np.argsort(-found.ratio[failing].max(1), kind="stable")]
    if len(order) > len(found.ratio) // 4 + 4 and not many:
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
    result[order[_ROWS:]] = result[judged].max(0) if many else np.inf
    return result


def _effect(
    program: Program,
    inputs: Mapping[str, Array],
    output: int,
    sample: Sample,
    chosen: Array,
    rng: np.random.Generator,
) -> Array:
    """(chosen rows, 2): change of the oracle per unit of relative change of its values; maximum and
    rms in the row.
    """
    store = program.outputs[output]
    single = Program(program.name, program.inputs, (store,), program.compute)
    few = sample.restricted(chosen) if sample.shape else sample

    def moved(rng: np.random.Generator) -> Array:
        with np.errstate(all="ignore"):
            return oracle(single, inputs, [few], Noisy(_STEP, rng))[0]

    [base] = oracle(single, inputs, [few])
    squares = np.zeros((len(chosen), 2))
    effort = work(sampled(single, [few])[0])
    long = effort.elements > _LONG
    generators = rng.spawn(_MOVES) if long else [rng] * _MOVES
    with ThreadPoolExecutor(evaluators(effort, _MOVES) if long else 1) as pool:
        for value in pool.map(moved, generators):
            with np.errstate(all="ignore"):
                change = np.abs(value - base) / _STEP
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
