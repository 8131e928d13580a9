"""Numbers that depend on sizes, computed once with symbols for all sizes and evaluated at any.

In: code that asks a `Measures` for sizes. `Symbols` answers with the symbols of a tape, so that the
tape holds what the code computes; `Recorded.at` repeats it without the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from prism_jax.ir.counts import Number
from prism_jax.ir.nodes import Axis, Precision, Tensor
from prism_jax.ir.tape import Tape, Traced


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


class Symbols:
    """Sizes that are symbols of a tape; `numbers` gives them values."""

    def __init__(self, precisions: Mapping[Precision, Precision] | None = None) -> None:
        self.tape = Tape()
        self._operands = {old.operand: new.operand for old, new in (precisions or {}).items()}
        self._axes: dict[Axis, Traced] = {}
        self._tensors: dict[Tensor, Traced] = {}
        self._wholes: dict[Tensor, Traced] = {}

    def extent(self, axis: Axis) -> Number:
        """See `Measures`, as for the others."""
        if axis not in self._axes:
            self._axes[axis] = self.tape.symbol(f"axis {axis.name}")
        return self._axes[axis]

    def each(self, tensor: Tensor) -> Number:
        if tensor not in self._tensors:
            self._tensors[tensor] = self.tape.symbol(f"bytes {tensor.name}")
        return self._tensors[tensor]

    def elements(self, tensor: Tensor) -> Number:
        if tensor not in self._wholes:
            self._wholes[tensor] = self.tape.symbol(f"whole {tensor.name}")
        return self._wholes[tensor]

    def operand(self, dtype: str) -> str:
        return self._operands.get(dtype, dtype)

    def numbers(self, sizes: Measures) -> dict[str, Number]:
        """Every symbol's value; a tensor of unknown size is as large as can be."""
        found: dict[str, Number] = {f"axis {a.name}": sizes.extent(a) for a in self._axes}
        found |= {f"bytes {t.name}": sizes.each(t) for t in self._tensors}
        for tensor in self._wholes:
            whole = sizes.elements(tensor)
            found[f"whole {tensor.name}"] = math.inf if whole is None else whole
        return found


class Recorded:
    """One number."""

    def __init__(
        self, compute: Callable[[Measures], Number], precisions: Mapping[Precision, Precision]
    ) -> None:
        self._symbols = Symbols(precisions)
        self._wanted = compute(self._symbols)

    def at(self, sizes: Measures) -> float:
        """The number at these sizes, whose precisions are those that it was recorded with."""
        if not isinstance(self._wanted, Traced):
            return float(self._wanted)
        [found] = self._symbols.tape.run(self._symbols.numbers(sizes), [self._wanted])
        return float(found)
