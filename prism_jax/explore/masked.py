"""How much of a kernel is left once the steps are left out that a mask makes idle.

In: a kernel. Out: the share of its steps, on average over blocks, that the search's model expects
it to take. Tiles are taken to be small beside their axes, so that sizes alone decide; what is
launched is ranked by the tiles that it has (`instantiate.work`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prism_jax.ir.idle import Mask, cutting
from prism_jax.ir.masks import Atom, atoms, share
from prism_jax.ir.nodes import Axis, Pointwise, Store
from prism_jax.ir.program import contents, walk
from prism_jax.ir.sgraph import Kernel, Loop

__all__ = ["Cuts", "cut_loops", "cuts", "possible", "steps_left"]


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


def cut_loops(kernel: Kernel) -> list[tuple[Loop, Mask]]:
    """The loops that a mask cuts, with the mask."""
    found: list[tuple[Loop, Mask]] = []
    for loop in kernel.loops:
        if not any(contents(a.summand).positional for a in loop.accumulators):
            continue
        mask = cutting(loop) if isinstance(loop.axis.size, int) else None
        if mask is None or (loop.split is not None and mask.idle.checks):
            continue
        if all(isinstance(a.size, int) for atom in mask.atoms for a, _ in atom.coefficients):
            found.append((loop, mask))
    return found


def cuts(kernel: Kernel) -> Cuts | None:
    """What cuts the kernel's loops; None if nothing does."""
    masks = {id(loop): mask.atoms for loop, mask in cut_loops(kernel)}
    loops = tuple((loop.axis, masks.get(id(loop), ())) for loop in kernel.loops)
    return Cuts(loops) if masks else None


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
