"""The mapping space of one program, counted stage by stage as Prism counts it.

In: a program of one contraction, and how many dimensions the grid has. Out: the mappings that each
of Prism's conditions leaves, listed by `mapping.assignments`, the function that the search itself
enumerates with; and their numbers as a `Funnel`.

A mapping says for every dimension of every tensor (one `Dim`) which parallel dimensions split it.
*Well formed*: a parallel dimension splits at most one dimension of a tensor, a dimension is split
by at most one dimension of the grid (and perhaps by the loop too), an output by no loop. *Matched*:
dimensions that one axis indexes in several inputs are split alike. *Canonical*: one of those that
differ by the order of the grid's dimensions. *Correct*: an output's axis is split in the inputs as
it is in the output, one summed axis is looped over, and every dimension of the grid splits one
axis. A correct mapping with a summed axis on the grid leaves a sum *across blocks*: the search
makes it only together with the kernel that adds them (`split`).

>>> import jax, jax.numpy as jnp
>>> from prism_jax.extract import lift
>>> matrix = jax.ShapeDtypeStruct((64, 64), jnp.float16)
>>> print(MappingSpace(lift(jax.make_jaxpr(jnp.dot)(matrix, matrix), "f"), grid=2).funnel())
65,536 -> 3,087 -> 595 -> 300 -> 3 correct (1 without a sum across blocks)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from prism_jax.explore.mapping import Split, assignments
from prism_jax.ir.nodes import Index, Load, Reduce
from prism_jax.ir.program import Program

Dim = tuple[str, str]
"""A tensor and an axis that indexes one dimension of it, by name."""
Found = dict[Dim, Split]

LOADED = ("held", "loop", "grid", "grid and loop")
STORED = ("held", "grid")


@dataclass(frozen=True)
class Funnel:
    """How many mappings each stage leaves; `booleans`: all assignments of the unknowns."""

    booleans: int
    well_formed: int
    matched: int
    canonical: int
    correct: int
    within_blocks: int

    def __str__(self) -> str:
        left = (self.booleans, self.well_formed, self.matched, self.canonical)
        return (
            " -> ".join(f"{n:,}" for n in left)
            + f" -> {self.correct:,} correct ({self.within_blocks:,} without a sum across blocks)"
        )


class MappingSpace:
    """The mappings of a program's tensors to `grid` dimensions of the grid and one loop."""

    def __init__(self, program: Program, grid: int) -> None:
        """Raises ValueError where an index is not one axis or an axis indexes a tensor twice."""
        [store] = program.outputs
        loads = dict.fromkeys(n for n in program.nodes if isinstance(n, Load))
        self.grid = grid
        self.inputs = {load.tensor.name: _axes(load.tensor.name, load.index) for load in loads}
        self.output = (store.tensor.name, _axes(store.tensor.name, store.index))
        self.summed = {
            a.name for n in program.nodes if isinstance(n, Reduce) for a in n.axes
        } - set(self.output[1])

    @property
    def tensors(self) -> list[list[Dim]]:
        """The dimensions of every tensor, the output last."""
        every = [*self.inputs.items(), self.output]
        return [[(name, axis) for axis in axes] for name, axes in every]

    @property
    def booleans(self) -> int:
        """All assignments of one Boolean per dimension and parallel dimension."""
        loaded, stored = sum(map(len, self.inputs.values())), len(self.output[1])
        return 2 ** (loaded * (self.grid + 1) + stored * self.grid)

    def well_formed(self) -> Iterator[Found]:
        """No dimension knows of another tensor's."""
        allowed = {dim: self._roles(dim) for dims in self.tensors for dim in dims}
        return assignments(allowed, self.tensors, self.grid, 1, canonical=False)

    def matched(self, canonical: bool = True) -> Iterator[Found]:
        """Dimensions with one axis are one class, as index notation has it."""
        out = self.output[0]

        def key(dim: Dim) -> Hashable:
            return dim if dim[0] == out else dim[1]

        classes = [[key(dim) for dim in dims] for dims in self.tensors]
        allowed = {key(dim): self._roles(dim) for dims in self.tensors for dim in dims}
        for found in assignments(allowed, classes, self.grid, 1, canonical):
            yield {dim: found[key(dim)] for dims in self.tensors for dim in dims}

    def correct(self, found: Found) -> bool:
        """Whether blocks and steps of a matched mapping compute the program, summed over blocks
        where `crosses` says so.
        """
        name, stored = self.output
        loaded = {axis: split for (tensor, axis), split in found.items() if tensor != name}
        for axis in stored:
            split = loaded.get(axis, Split())
            if split.loop or split.grid != found[name, axis].grid:
                return False
        looped = {axis for (_, axis), split in found.items() if split.loop}
        gridded = {(split.grid, dim[1]) for dim, split in found.items() if split.grid is not None}
        numbers = {number for number, _ in gridded}
        return len(looped) == 1 and len(gridded) == len(numbers) == self.grid

    def crosses(self, found: Found) -> bool:
        """Whether the grid splits a summed axis, so that blocks would have to add their results."""
        return any(split.grid is not None and dim[1] in self.summed for dim, split in found.items())

    def funnel(self) -> Funnel:
        """The numbers."""
        canonical = list(self.matched())
        correct = [found for found in canonical if self.correct(found)]
        return Funnel(
            self.booleans,
            sum(1 for _ in self.well_formed()),
            sum(1 for _ in self.matched(canonical=False)),
            len(canonical),
            len(correct),
            sum(not self.crosses(found) for found in correct),
        )

    def _roles(self, dim: Dim) -> tuple[str, ...]:
        return STORED if dim[0] == self.output[0] else LOADED


def _axes(tensor: str, indices: tuple[Index, ...]) -> tuple[str, ...]:
    axes = [index.axis for index in indices]
    names = tuple(axis.name for axis in axes if axis is not None)
    if len(set(names)) < len(indices):
        raise ValueError(f"a dimension of {tensor} is not indexed by an axis of its own")
    return names
