"""What an execution did, counted while it runs: it checks closed forms of traffic and work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prism_jax.ir.nodes import Axis
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.product import Sides


@dataclass
class Counter:
    """What an execution did: bytes moved per tensor, in its declared dtype, and operations by kind.

    Kinds are the cost classes of the operator table, "contraction" (a multiply-add counts 2),
    "reduction" (one per element of the body, its merging with an accumulator included) and
    "combine" (an accumulator's rescaling).
    """

    read: dict[str, int] = field(default_factory=dict[str, int])
    written: dict[str, int] = field(default_factory=dict[str, int])
    operations: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def flops(self) -> int:
        """All operations that are not free."""
        return sum(n for kind, n in self.operations.items() if kind != "free")

    def count(self, kind: str, amount: int) -> None:
        """Adds operations of a kind."""
        self.operations[kind] = self.operations.get(kind, 0) + amount

    def product(
        self, sides: Sides, summed: tuple[Axis, ...], elements: Callable[[tuple[Axis, ...]], int]
    ) -> None:
        """Adds a matrix product: a multiply-add for each of its elements, and a multiplication for
        each further factor of a side or of the sum.
        """
        for side in (sides.left, sides.right):
            for n in range(1, len(side)):
                self.count("mul", elements(_union(f.axes_free for f in side[: n + 1])))
        own = _union([*(f.axes_free for f in (*sides.left, *sides.right)), summed])
        self.count("contraction", 2 * elements(own))
        kept = tuple(a for a in own if a not in summed)
        for factor in sides.rest:
            kept = _union([kept, factor.axes_free])
            self.count("mul", elements(kept))

    def move(self, table: dict[str, int], name: str, dtype: str, elements: int) -> None:
        """Adds bytes of a tensor to `read` or `written`."""
        table[name] = table.get(name, 0) + elements * numpy_dtype(dtype).itemsize


def _union(groups: Iterable[tuple[Axis, ...]]) -> tuple[Axis, ...]:
    return tuple(dict.fromkeys(axis for group in groups for axis in group))
