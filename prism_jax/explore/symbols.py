"""Numbers that depend on sizes, computed once with symbols for all sizes and evaluated at any.

In: code that asks a `Measures` for sizes. `Symbols` answers with the symbols of a tape, so that the
tape holds what the code computes; an `Evaluation` repeats it at given sizes without the code. All
numbers of a family are on one tape: what two of them share is recorded, and computed, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from prism_jax.device import Device
from prism_jax.explore.masked import Cuts
from prism_jax.explore.sizes import Recipe, values_of
from prism_jax.ir.counts import Number, distinct
from prism_jax.ir.nodes import Axis, Load, Precision, Tensor
from prism_jax.ir.tape import Tape, Traced, Values

DIMENSIONS = 12
"""Of the arrays in which tile sizes vary, as long as no kernel has more tiles."""


class Measures(Protocol):
    """What closed forms ask of sizes (see `closed.Sizes`)."""

    def extent(self, axis: Axis) -> Any:
        """The size of an axis."""
        ...

    def each(self, tensor: Tensor) -> Any:
        """Bytes of an element."""
        ...

    def elements(self, tensor: Tensor) -> Any:
        """Elements of a tensor; None where that is not known."""
        ...

    def operand(self, dtype: str) -> str:
        """The dtype of the operands of products that a program states with this one."""
        ...

    def distinct(self, load: Load) -> Any:
        """`counts.distinct` of a load."""
        ...

    def left(self, cut: Cuts) -> Any:
        """The share of steps that masks leave."""
        ...

    def once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` makes, perhaps as it was made before."""
        ...


class Instance(Measures, Protocol):
    """Sizes that are numbers."""

    @property
    def precisions(self) -> Mapping[Precision, Precision]:
        """What has become of the precisions that a program states."""
        ...


class Symbols:
    """Sizes that are symbols of a tape."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.leaves: dict[str, Callable[[Evaluation], Any]] = {}
        """What gives each symbol its value."""
        self.cut: dict[str, Recipe] = {}
        """Of the symbols that are columns of tile sizes: what they cut."""
        self._axes: dict[Axis, Traced] = {}
        self._tensors: dict[Tensor, Traced] = {}
        self._wholes: dict[Tensor, Traced] = {}
        self._homes: dict[str, int] = {}
        self.known: dict[Hashable, Any] = {}
        self._distinct: dict[Load, Number] = {}

    def extent(self, axis: Axis) -> Number:
        """See `Measures`, as for the others."""
        found = self._axes.get(axis)
        if found is None:
            name = f"axis {axis.name} {axis.size}"
            found = self._axes[axis] = self._leaf(name, lambda e: e.sizes.extent(axis))
        return found

    def each(self, tensor: Tensor) -> Number:
        found = self._tensors.get(tensor)
        if found is None:
            name = f"bytes {tensor.name} {tensor.dtype}"
            found = self._tensors[tensor] = self._leaf(name, lambda e: e.sizes.each(tensor))
        return found

    def elements(self, tensor: Tensor) -> Number:
        """A tensor of unknown size is as large as can be."""
        found = self._wholes.get(tensor)
        if found is None:

            def whole(evaluation: Evaluation) -> Any:
                known = evaluation.sizes.elements(tensor)
                return math.inf if known is None else known

            name = f"whole {tensor.name} {tensor.shape}"
            found = self._wholes[tensor] = self._leaf(name, whole)
        return found

    def distinct(self, load: Load) -> Number:
        """`counts.distinct` of a load."""
        found = self._distinct.get(load)
        if found is None:
            found = self._distinct[load] = distinct(load, self.extent)
        return found

    def left(self, cut: Cuts) -> Number:
        return self._leaf(f"left {cut.loops}", lambda e: cut.left(e.sizes.extent))

    def columns(self, recipes: Mapping[str, Recipe]) -> dict[str, tuple[Traced, int]]:
        """For each size symbol of one kernel the column of its values, and the dimension, counted
        from the last one, in which they vary.

        A symbol keeps its dimension in all kernels as far as they can agree, so that what depends
        on the same symbols is the same array.
        """
        found: dict[str, tuple[Traced, int]] = {}
        taken = set[int]()
        for symbol, recipe in sorted(recipes.items()):
            place = self._homes.setdefault(symbol, len(self._homes) % DIMENSIONS)
            while place in taken:
                place += 1
            taken.add(place)

            def column(evaluation: Evaluation, recipe: Recipe = recipe, place: int = place) -> Any:
                return as_column(evaluation.values(recipe), place)

            traced = self._leaf(f"{place} {recipe}", column, 1 << place)
            self.cut[self.tape.names[traced.place]] = recipe
            found[symbol] = traced, place
        return found

    def _leaf(self, name: str, value: Callable[[Evaluation], Any], varies: int = 0) -> Traced:
        self.leaves.setdefault(name, value)
        return self.tape.symbol(name, varies)


def as_column(values: Sequence[int], place: int) -> Any:
    """Values along one dimension, counted from the last."""
    return np.array(values, np.int64).reshape([-1] + [1] * place)


@dataclass(frozen=True)
class Asked:
    """Sizes that are symbols, of a program whose products have got other operands."""

    symbols: Symbols
    operands: Mapping[str, str]
    key: Hashable
    """What recorded numbers may depend on beside sizes."""

    def extent(self, axis: Axis) -> Number:
        """See `Measures`, as for the others."""
        return self.symbols.extent(axis)

    def each(self, tensor: Tensor) -> Number:
        return self.symbols.each(tensor)

    def elements(self, tensor: Tensor) -> Number:
        return self.symbols.elements(tensor)

    def operand(self, dtype: str) -> str:
        return self.operands.get(dtype, dtype)

    def distinct(self, load: Load) -> Number:
        return self.symbols.distinct(load)

    def left(self, cut: Cuts) -> Number:
        return self.symbols.left(cut)

    def once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        key = self.key, what
        found = self.symbols.known.get(key)
        if found is None:
            found = self.symbols.known[key] = make()
        return found


class Evaluation:
    """Recorded numbers at given sizes, on a device."""

    def __init__(self, symbols: Symbols, device: Device, sizes: Instance) -> None:
        self.symbols, self.device, self.sizes = symbols, device, sizes
        changed = sizes.precisions
        operands = {old.operand: new.operand for old, new in changed.items()}
        self.key: Hashable = (device, tuple(changed.items()))
        """What recorded numbers may depend on beside sizes."""
        self.asked = Asked(symbols, operands, self.key)
        self._values = Values(symbols.tape, lambda name: symbols.leaves[name](self))
        self._largest = Values(symbols.tape, self._extreme, arrays=False)
        self._lists: dict[Recipe, list[int]] = {}

    def values(self, recipe: Recipe) -> list[int]:
        """The values of a size symbol here."""
        if recipe not in self._lists:
            self._lists[recipe] = values_of(recipe, self.device, self.sizes.extent)
        return self._lists[recipe]

    def of(self, *wanted: Number) -> list[Any]:
        """The values of recorded numbers here."""
        return self._values.of(wanted)

    def apart(self, columns: Mapping[Traced, Any]) -> Callable[..., list[Any]]:
        """`of`, with other columns of values than the symbols have."""
        tape, leaves = self.symbols.tape, self.symbols.leaves
        other = {tape.names[traced.place]: column for traced, column in columns.items()}
        values = Values(tape, lambda n: other[n] if n in other else leaves[n](self))
        return lambda *wanted: values.of(wanted)

    def at_least(self, *wanted: Number) -> list[Any]:
        """The values where every tile is as large as it can be, and no reduction is split."""
        return self._largest.of(wanted)

    def _extreme(self, name: str) -> Any:
        recipe = self.symbols.cut.get(name)
        if recipe is None:
            return self.symbols.leaves[name](self)
        return self.values(recipe)[-1] if recipe else 1
