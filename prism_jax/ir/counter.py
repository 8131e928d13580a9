"""What an execution did, counted while it runs: it checks closed forms of traffic and work."""

from __future__ import annotations

from dataclasses import dataclass, field

from prism_jax.ir.ops import numpy_dtype


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

    def move(self, table: dict[str, int], name: str, dtype: str, elements: int) -> None:
        """Adds bytes of a tensor to `read` or `written`."""
        table[name] = table.get(name, 0) + elements * numpy_dtype(dtype).itemsize
