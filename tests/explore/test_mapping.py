"""The mapping space, counted as Prism counts it (section 4.2 of the paper, by the figures of its
worked example), by the function that the search itself enumerates with, and checked by brute force,
as are programs of other ranks.

For one matrix product with two grid dimensions and one loop: 65,536 Boolean matrices, 3,087 of them
well formed, 595 after dimension matching, 300 up to the order of the grid's dimensions, 3 correct,
1 of these without a sum across blocks.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.explore import mapping
from prism_jax.explore.grouping import groups
from prism_jax.explore.mapping import Split, assignments, mappings
from prism_jax.explore.partition import Counts, Structures, Variant
from prism_jax.explore.pruning import NONE
from prism_jax.explore.space import Dim, Found, MappingSpace
from prism_jax.explore.targets import Names, targets
from prism_jax.extract import lift
from prism_jax.ir.check import check_sgraph
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph

GRID, LOOP, SIZE = (2, 3), 5, 30
"""Parts of every dimension that is split: all tiles of a dimension have different sizes."""

PRODUCTS: dict[str, tuple[str, int, str]] = {
    "matrix product": (
        "ik,kj->ij", 2, "65,536 -> 3,087 -> 595 -> 300 -> 3 correct (1 without a sum across blocks)"
    ),
    "batched matrix product": (
        "bik,bkj->bij", 1,
        "32,768 -> 1,024 -> 144 -> 144 -> 4 correct (3 without a sum across blocks)",
    ),
    "matrix times vector": (
        "ik,k->i", 2, "2,048 -> 378 -> 63 -> 33 -> 1 correct (0 without a sum across blocks)"
    ),
    "two sums that share nothing": (
        "ik,l->i", 2, "2,048 -> 378 -> 378 -> 192 -> 6 correct (0 without a sum across blocks)"
    ),
}  # fmt: skip


class Blocks:
    """The reference: a mapping's blocks and steps, run with numpy on whole tensors."""

    def __init__(self, text: str, grid: int) -> None:
        left, self.out = text.split("->")
        self.text, self.inputs, self.grid = text, left.split(","), grid
        shapes = [(SIZE,) * len(axes) for axes in self.inputs]
        self.program = lift(
            jax.make_jaxpr(lambda *arrays: jnp.einsum(text, *arrays))(
                *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
            ),
            "f",
        )
        self.space = MappingSpace(self.program, grid)
        random = np.random.default_rng(0)
        self.arrays = [random.standard_normal(shape) for shape in shapes]
        self.expected = np.einsum(text, *self.arrays)

    def run(self, found: Found) -> bool | None:
        """Whether blocks and steps of this mapping give the product; None if shapes do not fit."""
        tensors = self.space.tensors
        total: Any = 0.0
        for block in itertools.product(*(range(g) for g in GRID[: self.grid])):
            acc: Any = 0.0
            for step in range(LOOP):
                tiles: list[Any] = []
                for array, dims in zip(self.arrays, tensors[:-1], strict=True):
                    tiles.append(_tile(array, [found[dim] for dim in dims], block, step))
                if not self._typed(tiles):
                    return None
                acc = acc + np.einsum(self.text, *tiles)
            splits = [found[dim].grid for dim in tensors[-1]]
            at = [0 if p is None else block[p] for p in splits]
            counts = [1 if p is None else GRID[p] for p in splits]
            whole = np.zeros([n * c for n, c in zip(acc.shape, counts, strict=True)])
            places = zip(at, acc.shape, strict=True)
            whole[tuple(slice(a * n, (a + 1) * n) for a, n in places)] = acc
            total = total + whole  # a grid dimension that the output leaves out is summed over
        return total.shape == self.expected.shape and bool(np.allclose(total, self.expected))

    def _typed(self, tiles: list[Any]) -> bool:
        sizes: dict[str, int] = {}
        return all(
            sizes.setdefault(axis, size) == size
            for axes, tile in zip(self.inputs, tiles, strict=True)
            for axis, size in zip(axes, tile.shape, strict=True)
        )


def _tile(array: Any, splits: list[Split], block: tuple[int, ...], step: int) -> Any:
    for n, split in enumerate(splits):
        if split.grid is not None:
            array = np.split(array, GRID[split.grid], n)[block[split.grid]]
        if split.loop:
            array = np.split(array, LOOP, n)[step]
    return array


def orbits(found: list[Found], grid: int) -> int:
    """How many there are up to permutations of the grid's dimensions, the slow way."""
    seen: set[Any] = set()
    for one in found:
        forms: list[tuple[str, ...]] = []
        for order in itertools.permutations(range(grid)):
            renamed = {
                dim: Split(None if s.grid is None else order[s.grid], s.loop)
                for dim, s in one.items()
            }
            forms.append(tuple(repr(renamed[dim]) for dim in sorted(renamed)))
        seen.add(min(forms))
    return len(seen)


@pytest.mark.parametrize("name", PRODUCTS)
def test_counts(name: str) -> None:
    """The first is the paper's worked example."""
    text, grid, funnel = PRODUCTS[name]
    assert str(Blocks(text, grid).space.funnel()) == funnel


def test_the_one_without_a_sum_across_blocks() -> None:
    space = Blocks("ik,kj->ij", 2).space
    [alone] = [m for m in space.matched() if space.correct(m) and not space.crosses(m)]
    [rows, columns], [left, right] = space.tensors[-1], space.tensors[:-1]
    assert [alone[dim] for dim in left] == [Split(0), Split(loop=True)]
    assert [alone[dim] for dim in right] == [Split(loop=True), Split(1)]
    assert (alone[rows], alone[columns]) == (Split(0), Split(1))


@pytest.mark.parametrize("name", PRODUCTS)
def test_counts_by_brute_force(name: str) -> None:
    """Every Boolean matrix is written out and judged by the definitions; correctness is judged by
    running blocks and steps.
    """
    text, grid, _ = PRODUCTS[name]
    blocks = Blocks(text, grid)
    space = blocks.space
    dims = [dim for tensor in space.tensors for dim in tensor]
    rows = [grid + (dim not in space.tensors[-1]) for dim in dims]
    matrices = 0
    well_formed: set[str] = set()
    for bits in itertools.product((0, 1), repeat=sum(rows)):
        matrices += 1
        found = _read(bits, dims, rows, space)
        if found is not None:
            well_formed.add(repr(found))
    assert matrices == space.booleans
    listed = list(space.well_formed())
    assert {repr(one) for one in listed} == well_formed
    assert len(listed) == len(well_formed)

    ran = [(one, blocks.run(one)) for one in listed]
    matched = list(space.matched(canonical=False))
    assert {repr(one) for one, fits in ran if fits is not None} == {repr(one) for one in matched}
    assert orbits(matched, grid) == sum(1 for _ in space.matched())
    right = {repr(one) for one, fits in ran if fits and _uses_the_grid(one, grid)}
    assert right == {repr(one) for one in matched if space.correct(one)}


def _uses_the_grid(found: Found, grid: int) -> bool:
    """Mappings that leave a dimension of the grid unused are those of a smaller space. (A loop that
    no input uses would add the same product again and again, which the reference finds wrong.)
    """
    return len({s.grid for s in found.values()} - {None}) == grid


def _read(
    bits: tuple[int, ...], dims: list[Dim], rows: list[int], space: MappingSpace
) -> Found | None:
    """The mapping that a Boolean matrix means, None if it is not well formed."""
    found: Found = {}
    start = 0
    for dim, count in zip(dims, rows, strict=True):
        own = bits[start : start + count]
        start += count
        grid = [p for p in range(space.grid) if own[p]]
        if len(grid) > 1:
            return None
        found[dim] = Split(grid[0] if grid else None, bool(count > space.grid and own[-1]))
    for tensor in space.tensors:
        for p in range(space.grid):
            if sum(found[d].grid == p for d in tensor) > 1:
                return None
        if sum(found[d].loop for d in tensor) > 1:
            return None
    return found


@pytest.mark.parametrize("read", [lambda a: a[:, 0], lambda a: a[1:], lambda a: a.reshape(16)])
def test_indices_that_are_not_one_axis_each_are_refused(read: Any) -> None:
    program = lift(jax.make_jaxpr(read)(jax.ShapeDtypeStruct((4, 4), jnp.float32)), "f")
    with pytest.raises(ValueError, match="not indexed by an axis of its own"):
        MappingSpace(program, 1)


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


def test_mappings_beyond_the_limit_are_counted() -> None:
    def product(x: Any) -> Any:
        return jnp.exp(x.sum(0)[:, None]) * x.sum(1) * x.max() + x.min(1)

    program = lift(jax.make_jaxpr(product)(jax.ShapeDtypeStruct((128, 128), jnp.float32)), "f")
    every = list(mappings(program.outputs, 1 << 20))
    assert len({str(roles) for roles in every}) == len(every) > 3
    left: list[int] = []
    assert list(mappings(program.outputs, 3, None, left.append)) == every[:3]
    assert left == [len(every) - 3]


# ---- attention with Prism's operators


def prism_attention(b: int, m: int, d: int, keys: int, n: int) -> Program:
    """Softmax without its maximum, as in Prism's operator set: q (b, m, d), k (b, d, keys), v."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        e = jnp.exp(q @ k)
        return (e @ v) / e.sum(-1, keepdims=True)

    shapes = ((b, m, d), (b, d, keys), (b, keys, n))
    args = (jax.ShapeDtypeStruct(s, jnp.float16) for s in shapes)
    return lift(jax.make_jaxpr(attention)(*args), "attention")


def fused(program: Program) -> tuple[Variant, ...]:
    """Every structure that stores the output and nothing else that is not its own split's."""
    names = Names(program.compute)
    [stores] = groups(program, targets(program, frozenset(), names), names)
    structures = Structures(program.compute, NONE)
    return structures.variants(structures.group("attention", stores), Counts(), math.inf)


def structure(variant: Variant) -> str:
    loops = [loop for kernel in variant.kernels for loop in kernel.loops]
    inner = ["".join(f" (inner {i.axis.name})" for i in loop.inner) for loop in loops]
    words = [f"loop {loop.axis.name}{more}" for loop, more in zip(loops, inner, strict=True)]
    many = len(variant.kernels)
    return f"{many} kernel{'s'[: many > 1]}, {', '.join(words)}"


def test_attention_without_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prism reports 14 distinct graphs of attention as one kernel, a structure with a mapping each;
    of which ones there are only the number is published. Here are those of this house, every one
    run, and where the two differ.

    As one kernel with one loop there is one structure: two accumulators in a loop over the keys and
    the division after it. Its mappings put any of batch, query rows and value columns on the grid,
    but at least one (7). The keys must be looped over: on the grid they are a sum across blocks
    of two accumulators, which one kernel cannot divide.

    Differences. (1) Prism counts 14, twice 7: its operator set has more than one spelling of the
    row sum in that loop (a row sum in every step and a plain accumulator, or an accumulator that
    sums rows); here an accumulator is a reduction, so that these are one. (2) A mapping that does
    not split an axis is a tile as large as the axis: the 7 mappings are sizes of one sGraph here,
    found by instantiation, not 7 results. (3) Not in Prism's space are an inner loop over the head
    dimension and the split of the keys with its combining kernel (with the value columns held, or
    the row sum computed again); and all partitions into several kernels.
    """
    sizes = {"i": 2, "j": 8, "k": 16, "l": 24, "m": 12}
    program = prism_attention(*sizes.values())
    monkeypatch.setattr(mapping, "LOOP_AT_LEAST", 2)  # roles as at real sizes: keys are looped over
    monkeypatch.setattr(mapping, "HELD_AT_MOST", sizes["k"])
    random = np.random.default_rng(0)
    inputs = {t.name: random.standard_normal([int(s) for s in t.shape]) for t in program.inputs}
    [expected] = evaluate(program, inputs)
    outputs = tuple(store.tensor for store in program.outputs)
    listed: dict[str, int] = {}
    for variant in fused(program):
        graph = SGraph("f", program.inputs, variant.kernels, outputs, program.compute)
        check_sgraph(graph)
        rows = [g.axis.name for g in variant.kernels[-1].grid]
        allowed = dict.fromkeys(rows, ("held", "grid")) | {"l": ("loop",)}
        for found in assignments(allowed, [rows], 3, 1):
            if not any(split.grid is not None for split in found.values()):
                continue  # Prism's grids have at least one dimension that splits something
            tiles = {f"T_{a}": sizes[a] if found[a] == Split() else 5 for a in found}
            tiles |= {"T_k": 4, "S_l": 3}
            numbers = {symbol: tiles[symbol] for symbol in graph.symbols}
            [value] = evaluate_sgraph(graph, numbers, inputs)
            words = structure(variant)
            np.testing.assert_allclose(value, expected, rtol=1e-9, err_msg=f"{words} {found}")
            listed[words] = listed.get(words, 0) + 1
    assert listed == {
        "1 kernel, loop l": 7,
        "1 kernel, loop l (inner k)": 7,
        "2 kernels, loop l": 7,
        "2 kernels, loop l (inner k)": 7,
        "2 kernels, loop l, loop l": 7,
        "2 kernels, loop l (inner k), loop l (inner k)": 7,
    }
