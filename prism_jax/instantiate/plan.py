"""A plan: an sGraph with every number given, and the back end that runs it.

A plan is a value: frozen, hashable, printable. Two plans with one digest run the same code, so
jax's caches, the plan cache and tests compare digests. It holds no arrays and no functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from prism_jax.ir.sgraph import SGraph

BACKENDS = ("triton", "lax", "jnp")


@dataclass(frozen=True)
class Schedule:
    """How one kernel is compiled.

    Attributes:
      num_warps: of a block.
      num_stages: steps of a loop whose operands are on their way at once.
      products: "dot" (matrix unit) or "mulsum" (multiply, then add up).
      cut: leave out the steps of a loop that an affine mask makes idle (`ir.idle`).
      exp2: write exp(c x) as 2^(c' x), with all constant factors in c'; None: where no input, or no
        output, is wider than 16 bits, since a large argument is rounded once more.
      swizzle: blocks of the first grid axis that run together along the second; 1: plain order.
      hints: tell the cache which loads are read once and which again by other blocks.
    """

    num_warps: int = 4
    num_stages: int = 3
    products: str = "dot"
    cut: bool = False
    exp2: bool | None = None
    swizzle: int = 1
    hints: bool = False

    def summary(self) -> str:
        """A few words.

        >>> Schedule(8, 4, cut=True, swizzle=8).summary()
        '8w4s cut swizzle=8'
        """
        words = [f"{self.num_warps}w{self.num_stages}s"]
        words += [self.products] if self.products != "dot" else []
        words += ["cut"] if self.cut else []
        words += [] if self.exp2 is None else ["exp2" if self.exp2 else "exp"]
        words += [f"swizzle={self.swizzle}"] if self.swizzle > 1 else []
        words += ["hints"] if self.hints else []
        return " ".join(words)


@dataclass(frozen=True)
class Plan:
    """What runs for a region.

    `sizes` gives every symbol of the sGraph a number; `schedules` one entry per kernel, in order;
    `unroll` (lax and jnp) is the longest reduction that is written as a sum of slices; `device`
    names the row it was made for.
    """

    sgraph: SGraph
    backend: str
    device: str
    sizes: tuple[tuple[str, int], ...] = ()
    schedules: tuple[Schedule, ...] = ()
    unroll: int = 0

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"a plan's back end is one of {BACKENDS}, not {self.backend!r}")
        missing = sorted(set(self.sgraph.symbols) - set(dict(self.sizes)))
        if missing and self.backend != "jnp":
            raise ValueError(f"the plan for {self.sgraph.name} gives no number to {missing}")

    @property
    def numbers(self) -> Mapping[str, int]:
        """The sizes as a dictionary."""
        return dict(self.sizes)

    @property
    def cut(self) -> bool:
        """Whether any kernel leaves out idle steps."""
        return any(schedule.cut for schedule in self.schedules)

    @cached_property
    def digest(self) -> str:
        """sha256 of everything that decides what runs."""
        parts = [
            self.sgraph.digest,
            self.backend,
            self.device,
            repr(self.sizes),
            repr(self.schedules),
            str(self.unroll),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def text(self) -> str:
        """All of it as text that `plan_text.parse_plan` reads back."""
        from prism_jax.instantiate.plan_text import print_plan  # it reads plans

        return print_plan(self)

    def summary(self) -> str:
        """One line: back end, launches, sizes."""
        kernels = len(self.sgraph.kernels)
        calls = len(self.sgraph.nodes) - kernels
        sizes = " ".join(f"{s}={n}" for s, n in self.sizes)
        warps = " ".join(s.summary() for s in self.schedules)
        text = f"{self.backend}: {kernels} kernels, {calls} library calls"
        return " ".join(part for part in (text, sizes, warps) if part)
