"""How much of a kernel is left once the steps are left out that a mask makes idle.

In: a kernel. Out: the share of its steps, on average over blocks, that the search's model expects
it to take. Tiles are taken to be small beside their axes, so that sizes alone decide; what is
launched is ranked by the tiles that it has (`instantiate.work`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prism_jax.ir.idle import cutting
from prism_jax.ir.masks import Atom, atoms, share
from prism_jax.ir.nodes import Axis, Pointwise, Store
from prism_jax.ir.program import contents, walk
from prism_jax.ir.sgraph import Kernel

__all__ = ["Cuts", "cuts", "possible", "steps_left"]


@dataclass(frozen=True)
class Cuts:
    """The axis of each loop of a kernel, and the inequalities that cut it (none: nothing does)."""

    loops: tuple[tuple[Axis, tuple[Atom, ...]], ...]

    def left(self, extent: Callable[[Axis], int]) -> float:
        """The share of the steps of all loops that is left."""
        total = sum(extent(axis) for axis, _ in self.loops)
        left = sum(
            extent(axis) * (share(known, axis, extent) if known else 1.0)
            for axis, known in self.loops
        )
        return left / total if total else 1.0


def cuts(kernel: Kernel) -> Cuts | None:
    """What cuts the kernel's loops; None if nothing does."""
    found: list[tuple[Axis, tuple[Atom, ...]]] = []
    for loop in kernel.loops:
        positional = any(contents(a.summand).positional for a in loop.accumulators)
        whole = loop.split is None and isinstance(loop.axis.size, int)
        mask = cutting(loop) if positional and whole else None
        found.append((loop.axis, mask.atoms if mask is not None else ()))
    return Cuts(tuple(found)) if any(known for _, known in found) else None


def possible(stores: Iterable[Store]) -> tuple[Cuts, ...]:
    """Every way in which a mask may cut a loop of a kernel for these stores."""
    found: dict[Cuts, None] = {}
    roots = [store.value for store in stores if contents(store.value).positional]
    for node in walk(roots):
        if isinstance(node, Pointwise) and node.op == "where":
            known = atoms(node.args[0]) or ()
            for axis in sorted({a for atom in known for a, c in atom.coefficients if abs(c) == 1}):
                found[Cuts(((axis, known),))] = None
    return tuple(found)


def steps_left(kernel: Kernel) -> float:
    """The share at the kernel's own sizes."""
    found = cuts(kernel)
    return 1.0 if found is None else found.left(_own)


def _own(axis: Axis) -> int:
    return axis.size if isinstance(axis.size, int) else 1
