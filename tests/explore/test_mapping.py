"""The mapping space, counted as Prism counts it (section 4.2 of the paper, by the figures of its
worked example), by the function that the search itself enumerates with, and checked by brute force.

For one matrix product with two grid dimensions and one loop: 65,536 Boolean matrices, 3,087 of them
well formed, 595 after dimension matching, 300 up to the order of the grid's dimensions, 3 correct,
1 of these without a sum across blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.explore import mapping
from prism_jax.explore.grouping import Names, groups, targets
from prism_jax.explore.mapping import Split, assignments, mappings
from prism_jax.explore.partition import Counts, Structures
from prism_jax.explore.pruning import NONE
from prism_jax.extract import lift
from prism_jax.ir.program import Program

Dim = tuple[str, str]
"""A tensor and an axis: one dimension of it, before any are matched."""

SIZES = {"i": 12, "j": 30, "k": 60, "b": 6}
GRID, LOOP = (2, 3), 5
EVERY = ("held", "loop", "grid", "grid and loop")

PRODUCTS: dict[str, tuple[str, int]] = {
    "matmul": ("ik,kj->ij", 2),
    "batched matmul": ("bik,bkj->bij", 1),
    "matrix times vector": ("ik,k->i", 2),
}


class Product:
    """An einsum with so many grid dimensions and one loop."""

    def __init__(self, text: str, grid: int) -> None:
        left, self.out = text.split("->")
        self.text, self.inputs, self.grid = text, left.split(","), grid
        self.tensors = {f"x{n}": axes for n, axes in enumerate(self.inputs)} | {"out": self.out}

    @property
    def dims(self) -> list[list[Dim]]:
        return [[(name, axis) for axis in axes] for name, axes in self.tensors.items()]

    def booleans(self) -> int:
        rows = sum(len(a) for a in self.inputs) * (self.grid + 1) + len(self.out) * self.grid
        return 2**rows

    def roles(self, dim: Dim) -> tuple[str, ...]:
        return EVERY if dim[0] != "out" else ("held", "grid")

    def well_formed(self) -> Iterator[dict[Dim, Split]]:
        dims = [dim for tensor in self.dims for dim in tensor]
        allowed = {dim: self.roles(dim) for dim in dims}
        return assignments(allowed, self.dims, self.grid, 1, canonical=False)

    def matched(self, canonical: bool) -> Iterator[dict[Dim, Split]]:
        """Dimensions that the product contracts or pairs are one class: index notation gives them
        one axis.
        """

        def key(dim: Dim) -> Dim:
            return dim if dim[0] == "out" else ("in", dim[1])

        tensors = [[key(dim) for dim in tensor] for tensor in self.dims]
        allowed = {k: self.roles(k) for tensor in tensors for k in tensor}
        for found in assignments(allowed, tensors, self.grid, 1, canonical):
            yield {dim: found[key(dim)] for tensor in self.dims for dim in tensor}

    def splits(self, found: dict[Dim, Split], tensor: str) -> dict[str, Split]:
        return {axis: found[tensor, axis] for axis in self.tensors[tensor]}

    def correct(self, found: dict[Dim, Split]) -> bool:
        """The rule of the search: an output's axis is split over the grid as it is in the operands
        and never by a loop; a loop only steps through axes that are summed.
        """
        for n, axes in enumerate(self.inputs):
            for axis in axes:
                split = found[f"x{n}", axis]
                if axis in self.out:
                    if split.loop or split.grid != found["out", axis].grid:
                        return False
        looped = {a for n, x in enumerate(self.inputs) for a in x if found[f"x{n}", a].loop}
        used = {s.grid for s in found.values()} - {None}
        return len(looped) == 1 and len(used) == self.grid

    def crosses(self, found: dict[Dim, Split]) -> bool:
        """Whether blocks would have to add their results."""
        axes = {a: found[f"x{n}", a] for n, x in enumerate(self.inputs) for a in x}
        return any(s.grid is not None and a not in self.out for a, s in axes.items())

    # --- the reference: run it

    def runs(self, found: dict[Dim, Split], arrays: list[Any], expected: Any) -> bool | None:
        """Whether blocks and steps of this mapping give the product; None if shapes do not fit."""
        total: Any = 0.0
        whole: dict[tuple[int, ...], Any] = {}
        for block in itertools.product(*(range(g) for g in GRID[: self.grid])):
            acc: Any = 0.0
            for step in range(LOOP):
                tiles = [
                    self.tile(array, f"x{n}", found, block, step) for n, array in enumerate(arrays)
                ]
                sizes: dict[str, int] = {}
                for axes, tile in zip(self.inputs, tiles, strict=True):
                    for axis, size in zip(axes, tile.shape, strict=True):
                        if sizes.setdefault(axis, size) != size:
                            return None
                acc = acc + np.einsum(self.text, *tiles)
            whole[block] = acc
        places = [found["out", axis].grid for axis in self.out]
        for block, part in whole.items():
            at = tuple(0 if p is None else block[p] for p in places)
            counts = [1 if p is None else GRID[p] for p in places]
            full = np.zeros([n * c for n, c in zip(part.shape, counts, strict=True)])
            where = tuple(slice(a * n, (a + 1) * n) for a, n in zip(at, part.shape, strict=True))
            full[where] = part
            total = total + full  # a grid dimension that the output leaves out is summed over
        return total.shape == expected.shape and bool(np.allclose(total, expected))

    def tile(
        self, array: Any, tensor: str, found: dict[Dim, Split], block: tuple[int, ...], step: int
    ) -> Any:
        for n, axis in enumerate(self.tensors[tensor]):
            split = found[tensor, axis]
            if split.grid is not None:
                array = np.split(array, GRID[split.grid], n)[block[split.grid]]
            if split.loop:
                array = np.split(array, LOOP, n)[step]
        return array

    def arrays(self) -> tuple[list[Any], Any]:
        random = np.random.default_rng(0)
        made = [random.standard_normal([SIZES[a] * 5 for a in axes]) for axes in self.inputs]
        return made, np.einsum(self.text, *made)


def orbits(found: list[dict[Dim, Split]], grid: int) -> int:
    """How many there are up to permutations of the grid's dimensions, the slow way."""
    seen: set[Any] = set()
    for one in found:
        forms = []
        for order in itertools.permutations(range(grid)):
            renamed = {
                dim: Split(None if s.grid is None else order[s.grid], s.loop)
                for dim, s in one.items()
            }
            forms.append(tuple(repr(renamed[dim]) for dim in sorted(renamed)))
        seen.add(min(forms))
    return len(seen)


def test_counts_of_the_paper() -> None:
    product = Product(*PRODUCTS["matmul"])
    assert product.booleans() == 65_536
    assert sum(1 for _ in product.well_formed()) == 3_087
    assert sum(1 for _ in product.matched(canonical=False)) == 595
    canonical = list(product.matched(canonical=True))
    assert len(canonical) == 300
    correct = [found for found in canonical if product.correct(found)]
    assert len(correct) == 3
    [alone] = [found for found in correct if not product.crosses(found)]
    assert {a: s.grid for (t, a), s in alone.items() if t == "out"} == {"i": 0, "j": 1}
    assert alone["x0", "k"].loop


@pytest.mark.parametrize("name", PRODUCTS)
def test_counts_by_brute_force(name: str) -> None:
    """Every Boolean matrix is written out and judged by the definitions; correctness is judged by
    running blocks and steps.
    """
    product = Product(*PRODUCTS[name])
    dims = [dim for tensor in product.dims for dim in tensor]
    rows = [product.grid + (dim[0] != "out") for dim in dims]
    well_formed: set[str] = set()
    for bits in itertools.product((0, 1), repeat=sum(rows)):
        found = _read(bits, dims, rows, product)
        if found is not None:
            well_formed.add(repr(found))
    assert math.prod(2**r for r in rows) == product.booleans()
    listed = list(product.well_formed())
    assert {repr(one) for one in listed} == well_formed
    assert len(listed) == len(well_formed)

    arrays, expected = product.arrays()
    ran = [(one, product.runs(one, arrays, expected)) for one in listed]
    typed = [one for one, good in ran if good is not None]
    matched = list(product.matched(canonical=False))
    assert {repr(one) for one in typed} == {repr(one) for one in matched}
    assert orbits(matched, product.grid) == sum(1 for _ in product.matched(canonical=True))
    right = {repr(one) for one, good in ran if good and _uses_everything(one, product)}
    assert right == {repr(one) for one in matched if product.correct(one)}


def _uses_everything(found: dict[Dim, Split], product: Product) -> bool:
    """Mappings that leave a parallel dimension unused are those of a smaller space; a loop that no
    input uses would add the same product again and again, which the reference finds wrong.
    """
    return len({s.grid for s in found.values()} - {None}) == product.grid


def _read(
    bits: tuple[int, ...], dims: list[Dim], rows: list[int], product: Product
) -> dict[Dim, Split] | None:
    found: dict[Dim, Split] = {}
    start = 0
    for dim, count in zip(dims, rows, strict=True):
        own = bits[start : start + count]
        start += count
        grid = [p for p in range(product.grid) if own[p]]
        if len(grid) > 1:
            return None
        found[dim] = Split(grid[0] if grid else None, bool(count > product.grid and own[-1]))
    for tensor in product.dims:
        for p in range(product.grid):
            if sum(found[d].grid == p for d in tensor) > 1:
                return None
        if sum(found[d].loop for d in tensor) > 1:
            return None
    return found


def test_the_search_calls_this_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 300, the search keeps the one that is correct without a sum across blocks (that sum is
    a split, with its combining kernel), because index notation leaves it no other.
    """
    calls: list[Any] = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return assignments(*args, **kwargs)

    monkeypatch.setattr(mapping, "assignments", watched)
    shapes = (jax.ShapeDtypeStruct((512, 1024), jnp.float16),) * 2
    program = lift(jax.make_jaxpr(lambda x, w: x @ w.T)(*shapes), "f")
    [roles] = list(mappings(program.outputs))
    assert calls
    assert {axis.name: role for axis, role in roles.items()} == {
        "i": "grid", "j": "loop", "k": "grid",
    }  # fmt: skip


# ---- attention with Prism's operators


def prism_attention() -> Program:
    """Softmax without its maximum, as in Prism's operator set: q (b, m, d), k (b, d, n), v."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        e = jnp.exp(q @ k)
        return (e @ v) / e.sum(-1, keepdims=True)

    shapes = ((2, 8, 128), (2, 128, 8192), (2, 8192, 128))
    args = (jax.ShapeDtypeStruct(s, jnp.float16) for s in shapes)
    return lift(jax.make_jaxpr(attention)(*args), "attention")


def test_attention_without_a_maximum() -> None:
    """Prism reports 14 distinct graphs of attention. Here they are one structure (one loop over the
    keys, two accumulators, the division after it) under 7 mappings.

    A graph of Prism's is a structure with a mapping. Its mappings name the axes that the grid
    splits: of batch, query rows and value columns any but none, which are the 7 that `assignments`
    lists up to the order of the grid; the keys are looped over (the two remaining choices, keys on
    the grid or not split at all, are a sum across blocks and a loop that no input uses). Its
    structures come in pairs, because the row sum may be taken before or after accumulation (two
    accumulators of its operator set, for one reduction): 2 x 7 = 14. In this house an accumulator
    is a reduction, so the pair is one; and not splitting an axis is a tile as large as the axis, so
    the 7 mappings are sizes of one sGraph. What is here and not there: the split of the keys with
    its combining kernel, the head dimension as an inner loop, and kernels that hand tensors on.
    """
    program = prism_attention()
    rows = {"b": ("held", "grid"), "m": ("held", "grid"), "n": ("held", "grid"), "keys": ("loop",)}
    listed = list(assignments(rows, [("b", "m", "n")], 3, 1))
    used = [one for one in listed if any(s.grid is not None for s in one.values())]
    assert len(used) == 7

    names = Names(program.compute)
    [stores] = groups(program, targets(program, frozenset(), names), names)
    structures = Structures(program.compute, NONE)
    variants = structures.variants(structures.group("attention", stores), Counts(), math.inf)
    single = [v for v in variants if len(v.kernels) == 1]
    held = [v for v in single if not any(loop.inner for loop in v.kernels[0].loops)]
    assert [v.why for v in held] == ["loop l with 2 accumulators"]
    [kernel] = held[0].kernels
    assert [g.axis.name for g in kernel.grid] == ["i", "j", "m"]
    assert len(used) * 2 * len(held) == 14
