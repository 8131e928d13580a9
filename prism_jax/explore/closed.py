"""A kernel's closed forms, recorded once: evaluated at any sizes, on all its tiles, in one pass.

In: a kernel. Out: a `Closed`, whose `at` gives times for every legal assignment of its size
symbols, on a device, at the sizes of the kernel's own axes or at others (`Sizes`). Nothing of the
kernel is walked again: this is what makes a second shape cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from prism_jax.device import Device
from prism_jax.explore.bounds import bound, estimate
from prism_jax.explore.sizes import (
    MAX_SPLIT,
    batch_axes,
    choices,
    fitting,
    host_tiles,
    legal,
    widest_of,
)
from prism_jax.explore.symbols import Symbols
from prism_jax.ir.counts import Number, width
from prism_jax.ir.forms import Form, forms
from prism_jax.ir.nodes import Axis, Precision, Tensor
from prism_jax.ir.sgraph import Kernel

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
        name = axis.name
        while name not in self.axes and name.endswith("'"):
            name = name[:-1]
        own = axis.size if isinstance(axis.size, int) else MAX_SPLIT
        return self.axes.get(name, own) if isinstance(axis.size, int) else own

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


OWN = Sizes()


@dataclass(frozen=True)
class Times:
    """Every assignment of a kernel's symbols, with its bound and its estimate in seconds: infinite
    where it does not fit. `values`: those of each symbol, in the order of the arrays' dimensions.
    """

    values: Mapping[str, Sequence[int]]
    bounds: Column
    estimates: Column

    @property
    def fits(self) -> bool:
        """Whether any assignment does."""
        return bool(np.isfinite(self.estimates).any())

    def sizes(self, place: int) -> dict[str, int]:
        """The assignment at a flat position."""
        positions = np.unravel_index(place, self.estimates.shape)
        named = zip(self.values.items(), positions, strict=True)
        return {name: values[int(at)] for (name, values), at in named}


class Closed:
    """The closed forms of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._memo: dict[tuple[int, Device], Times] = {}

    @cached_property
    def _recorded(self) -> tuple[Symbols, Form, list[Number]]:
        sizes, wanted = Symbols(), list[Number]()
        symbols = {s: sizes.tape.symbol(s) for s in self.kernel.symbols}
        form = forms(self.kernel, symbols, sizes.extent, sizes.each)
        form.map(lambda n: wanted.append(n) or n)
        return sizes, form, wanted

    @cached_property
    def _batch(self) -> frozenset[Axis]:
        return batch_axes(self.kernel)

    @cached_property
    def _host_tiles(self) -> tuple[tuple[Axis, ...], ...]:
        return host_tiles(self.kernel)

    def form(self, symbols: Mapping[str, Number], sizes: Sizes = OWN) -> Form:
        """The closed forms at these numbers."""
        recorded, form, wanted = self._recorded
        known = iter(recorded.tape.run(recorded.numbers(sizes) | dict(symbols), wanted))
        found = form.map(lambda _: next(known))
        if sizes.precisions:
            work = list(found.arithmetic.items())
            found.arithmetic.clear()
            for unit, count in work:
                unit = ("dot", sizes.operand(unit[1])) if isinstance(unit, tuple) else unit
                found.arithmetic[unit] = found.arithmetic.get(unit, 0) + count
        return found

    def at(self, device: Device, sizes: Sizes = OWN) -> Times:
        """Times of all legal assignments, at most one evaluation per device and sizes."""
        key = (id(sizes), device)
        if key not in self._memo:
            self._memo = {key: self._times(device, sizes)}  # the last sizes only: tables are large
        return self._memo[key]

    def _times(self, device: Device, sizes: Sizes) -> Times:
        """A symbol is a dimension, so that what depends on few symbols is computed once for all
        values of the others.
        """
        values = choices(self.kernel, device, self._batch, sizes.extent)
        names = sorted(values)
        fitting(values, names)
        columns = {
            name: np.array(values[name], np.int64).reshape([-1] + [1] * (len(names) - n - 1))
            for n, name in enumerate(names)
        }
        form = self.form(columns, sizes)
        if device.kind == "cpu":
            widest = widest_of(self._host_tiles, self.kernel, columns, sizes.extent)
            form = replace(form, widest=widest)
        lengths = tuple(len(values[name]) for name in names)
        fits = legal(form, device, lengths)
        return Times(
            {name: values[name] for name in names},
            np.where(fits, bound(form, device), np.inf),
            np.where(fits, estimate(form, device), np.inf),
        )
