"""A kernel's closed forms, recorded once: evaluated at any sizes, on all its tiles, in one pass.

In: a kernel. Out: a `Closed`, whose `at` gives times for every legal assignment of its size
symbols, on a device, at the sizes of the kernel's own axes or at others (`Sizes`). Nothing of the
kernel is walked again, and what other kernels of the family have computed is not computed again:
this is what makes a second shape cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.explore.bounds import bound, estimate, least_estimate, least_times
from prism_jax.explore.masked import Cuts, cuts
from prism_jax.explore.sizes import (
    MAX_SPLIT,
    MOST_ASSIGNMENTS,
    Recipe,
    batch_axes,
    fitting,
    host_tiles,
    legal,
    recipes,
    widest_of,
)
from prism_jax.explore.symbols import Evaluation, Symbols, as_column
from prism_jax.ir.counts import Number, distinct, select, size_of, width
from prism_jax.ir.forms import Form, forms
from prism_jax.ir.nodes import Axis, Load, Precision, Tensor
from prism_jax.ir.sgraph import Kernel
from prism_jax.ir.tape import Traced

Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """Other sizes than a program states: of axes by name, bytes of an element and the number of
    elements of tensors by name, and dtypes of products. Empty: its own.

    A primed axis (made by renaming) has the size of the axis it comes from.
    """

    axes: Mapping[str, int] = field(default_factory=dict[str, int])
    bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    whole: Mapping[str, int] = field(default_factory=dict[str, int])
    precisions: Mapping[Precision, Precision] = field(default_factory=dict[Precision, Precision])

    def extent(self, axis: Axis) -> int:
        """The size of an axis here; of an axis that a split made, the most parts."""
        if not isinstance(axis.size, int):
            return MAX_SPLIT
        known = size_of(axis.name, self.axes)
        return axis.size if known is None else known

    def each(self, tensor: Tensor) -> int:
        """Bytes of one element of a tensor here."""
        return self.bytes.get(tensor.name, width(tensor.dtype))

    def elements(self, tensor: Tensor) -> int | None:
        """Elements of a tensor; None where that is not known here."""
        if not self.axes:
            return math.prod(s for s in tensor.shape if isinstance(s, int))
        return self.whole.get(tensor.name)

    def operand(self, dtype: str) -> str:
        """The dtype that operands of products have here."""
        changed = {old.operand: new.operand for old, new in self.precisions.items()}
        return changed.get(dtype, dtype)

    def distinct(self, load: Load) -> Number:
        """Elements that a load over all values of its axes reads at least."""
        return distinct(load, self.extent)

    def left(self, cut: Cuts) -> float:
        """The share of steps that masks leave here."""
        return cut.left(self.extent)

    def once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """See `symbols.Measures`: numbers of a program's own cost no record."""
        return make()


OWN = Sizes()


@dataclass(frozen=True)
class Times:
    """Estimates and bounds, in seconds, of every assignment of a kernel's symbols: infinite where
    it does not fit.

    `values`: those of each symbol, sorted by symbol; `places`: the dimension of the arrays, counted
    from the last, in which they vary. Bounds are computed when they are asked for.
    """

    values: Mapping[str, Sequence[int]]
    places: Mapping[str, int]
    estimates: Column
    make_bounds: Callable[[], Column]

    @cached_property
    def least(self) -> float:
        """The best estimate; infinite if nothing fits."""
        return float(self.estimates.min())

    @cached_property
    def bounds(self) -> Column:
        """As the estimates."""
        return self.make_bounds()

    def along(self, symbol: str, array: Column, parts: int) -> Column:
        """The least of an array's numbers for each of the first values of a symbol."""
        axis = array.ndim - 1 - self.places[symbol]
        if axis < 0:
            return np.full(parts, array.min())
        others = tuple(n for n in range(array.ndim) if n != axis)
        least = np.minimum.reduce(array, axis=others)
        return least[:parts] if len(least) > 1 else np.repeat(least, parts)

    def choice(self, symbol: str | None = None, number: int = 0) -> dict[str, int]:
        """The assignment with the best estimate, the first of equal ones in the order of symbols;
        with `symbol`, of those that have this value of it.
        """
        table = self._table(self.estimates)
        names = list(self.values)
        if symbol is not None:
            fixed = [slice(None)] * len(names)
            fixed[names.index(symbol)] = slice(number, number + 1)
            table = table[tuple(fixed)]
        positions = [int(n) for n in np.unravel_index(int(np.argmin(table)), table.shape)]
        if symbol is not None:
            positions[names.index(symbol)] = number
        return {name: self.values[name][at] for name, at in zip(names, positions, strict=True)}

    def _table(self, array: Column) -> Column:
        """An array whose dimensions are the symbols, sorted."""
        depth = max([array.ndim, *(place + 1 for place in self.places.values())])
        array = array.reshape((1,) * (depth - array.ndim) + array.shape)
        ours = [depth - 1 - place for place in self.places.values()]
        array = array.transpose(*ours, *(n for n in range(depth) if n not in ours))
        array = array.reshape(array.shape[: len(ours)])  # the rest are ones
        return np.broadcast_to(array, [len(values) for values in self.values.values()])


class Closed:
    """The closed forms of one kernel, on the tape of its family."""

    def __init__(self, kernel: Kernel, symbols: Symbols) -> None:
        self.kernel, self.symbols = kernel, symbols
        self._forms: dict[Hashable, Form] = {}
        self._known: dict[Hashable, Any] = {}

    @cached_property
    def _recipes(self) -> dict[str, Recipe]:
        return dict(sorted(recipes(self.kernel, batch_axes(self.kernel)).items()))

    @cached_property
    def _columns(self) -> dict[str, tuple[Traced, int]]:
        return self.symbols.columns(self._recipes)

    @cached_property
    def form(self) -> Form:
        """The closed forms, of recorded numbers."""
        sizes = {symbol: column for symbol, (column, _) in self._columns.items()}
        symbols = self.symbols
        return forms(self.kernel, sizes, symbols.extent, symbols.each, symbols.distinct)

    def _form(self, evaluation: Evaluation) -> Form:
        """The closed forms with what the device and the instance's precisions change."""
        form = self._forms.get(evaluation.key)
        if form is None:
            form = self._forms[evaluation.key] = self._asked(evaluation)
        return form

    def _asked(self, evaluation: Evaluation) -> Form:
        form = self.form
        if evaluation.device.kind == "cpu":
            sizes = {symbol: column for symbol, (column, _) in self._columns.items()}
            tiles = host_tiles(self.kernel)
            widest = widest_of(tiles, self.kernel, sizes, self.symbols.extent)
            form = replace(form, widest=widest)
        work: dict[Any, Number] = {}
        for unit, count in form.arithmetic.items():
            unit = ("dot", evaluation.asked.operand(unit[1])) if isinstance(unit, tuple) else unit
            work[unit] = work.get(unit, 0) + count
        return replace(form, arithmetic=work)

    @cached_property
    def _left(self) -> Number | None:
        """The share of steps that masks leave, if there are any."""
        cut = cuts(self.kernel) if self.form.masked else None
        return None if cut is None else self.symbols.left(cut)

    def _recorded(
        self, what: Callable[[Form, Device], Any], evaluation: Evaluation, expected: bool = True
    ) -> Any:
        """A number of the form, recorded when it is first asked for. `expected`: of the steps that
        masks leave.
        """
        key = what, evaluation.key
        if key not in self._known:
            form = self._form(evaluation)
            if expected and self._left is not None:
                form = form.left(self._left)
            self._known[key] = what(form, evaluation.device)
        return self._known[key]

    def _fitting(self, seconds: Number, evaluation: Evaluation) -> Number:
        """Infinite where an assignment does not fit."""
        return select(self._recorded(legal, evaluation, False), seconds, math.inf)

    def at(self, evaluation: Evaluation) -> Times:
        """Times of all legal assignments. A symbol is a dimension, so that what depends on few
        symbols is computed once for all values of the others.
        """
        values = {name: evaluation.values(recipe) for name, recipe in self._recipes.items()}
        find = evaluation.of
        if math.prod(map(len, values.values())) > MOST_ASSIGNMENTS:
            fitting(values, list(values))
            columns = {
                traced: as_column(values[name], place)
                for name, (traced, place) in self._columns.items()
            }
            find = evaluation.apart(columns)

        def array(number: Number) -> Column:
            return np.asarray(find(self._fitting(number, evaluation))[0], np.float64)

        places = {name: place for name, (_, place) in self._columns.items()}
        expected = array(self._recorded(estimate, evaluation))
        return Times(
            values, places, expected, lambda: array(self._recorded(bound, evaluation, False))
        )

    def least(self, evaluation: Evaluation) -> float:
        """A lower bound on every estimate, of numbers alone."""
        memory, work = evaluation.at_least(*self._recorded(least_times, evaluation))
        return least_estimate(memory, work, evaluation.device)
