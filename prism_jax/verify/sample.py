"""Which output elements the oracle is asked for, within a budget.

In: a program, a budget in element operations, a seed. Out: per output, None (all of it) or a
  `Sample` of whole or part rows.

>>> from prism_jax.ir.nodes import Axis, Load, Pointwise, Store, Tensor, at
>>> i, j = Axis("i", 10_000), Axis("j", 10_000)
>>> x, y = Tensor("x", (10_000, 10_000), "float32"), Tensor("y", (10_000, 10_000), "float32")
>>> exp = Pointwise("exp", (Load(x, (at(i), at(j))),))
>>> found = choose(Program("e", (x,), (Store(y, (at(i), at(j)), exp),)), 1 << 16, seed=0)
>>> found[0].points.shape, found[0].columns
((32768, 2), 64)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from prism_jax.ir.nodes import Axis, Node, Reduce, Store
from prism_jax.ir.program import Program, walk

Array: TypeAlias = Any
_MOST_POINTS = 1 << 15
_FEWEST_ROWS = 4
_COLUMNS = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled elements of one output: `points` (rows * columns, rank), row after row; None means
    every element.
    """

    shape: tuple[int, ...]
    columns: int
    points: Array | None = None

    def of(self, array: Array) -> Array:
        """The sampled elements of an output, as (rows, columns)."""
        array = np.asarray(array)
        if self.points is not None:
            array = array[tuple(self.points.T)]
        return array.reshape(-1, self.columns)

    def all_points(self) -> Array:
        """The elements' coordinates, (rows * columns, rank)."""
        if self.points is not None:
            return self.points
        return np.stack(np.unravel_index(np.arange(math.prod(self.shape)), self.shape), -1).reshape(
            -1, len(self.shape)
        )


def choose(program: Program, budget: int, seed: int) -> tuple[Sample, ...]:
    """A sample of every output; `budget` bounds the oracle's work over all of them."""
    share = max(1, budget // max(1, len(program.outputs)))
    rng = np.random.default_rng([seed, 977])
    return tuple(_choose(store, share, rng) for store in program.outputs)


def _choose(store: Store, budget: int, rng: np.random.Generator) -> Sample:
    shape = tuple(int(s) for s in store.tensor.shape)
    row = shape[-1] if shape else 1
    total = math.prod(shape)
    if not total or cost(store, ()) <= budget:
        return Sample(shape, max(row, 1))
    axes = tuple({a for index in store.index for a in index.axes_free})
    each = max(1, cost(store, axes))
    columns = min(row, _COLUMNS)
    count = min(max(1, budget // each), _MOST_POINTS, total)
    n = min(max(_FEWEST_ROWS, count // columns), total // row)
    rows = (
        rng.choice(total // row, n, replace=False)
        if total // row < 1 << 22
        else rng.integers(0, total // row, n)
    )
    spread = np.stack([rng.permutation(row)[:columns] for _ in range(n)])
    flat = np.sort(rows)[:, None] * row + np.sort(spread, 1)
    points = np.stack(np.unravel_index(flat.reshape(-1), shape), -1)
    return Sample(shape, columns, points)


def cost(store: Store, sampled: Sequence[Axis]) -> int:
    """Element operations for the whole output, or (given its axes as `sampled`) for one element of
    it.

    Values that no sampled axis enters are shared by all elements; they are counted as they are.
    """
    total = 0
    gone = set(sampled)
    for node in walk([store.value]):
        axes: set[Axis] = set(node.axes_free)
        if isinstance(node, Reduce):
            axes |= set(node.body.axes_free)
        shared = bool(gone) and not (axes & gone)
        work = math.prod(_size(a) for a in axes - gone)
        total += (work // 64 if shared else work) // (8 if _contraction(node) else 1)
    return max(total, 1)


def _contraction(node: Node) -> bool:
    return isinstance(node, Reduce) and node.monoid == "sum"


def _size(axis: Axis) -> int:
    return int(axis.size)
