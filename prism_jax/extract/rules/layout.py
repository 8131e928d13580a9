"""Equations that only move elements: each is a change of indices, guards and fills."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from prism_jax.extract.flat import Equation
from prism_jax.extract.integers import cast, compare, divmod_index, index_range, node_of, pointwise
from prism_jax.extract.rule import Point, Pull, guarded, rule
from prism_jax.ir.nodes import FLOATS, Index, Node, Within, at


@rule("broadcast_in_dim")
def broadcast_in_dim(e: Equation, p: Point) -> Pull:
    """Repeats along dimensions that the operand lacks or has with one element."""
    operand, where = e.inputs[0], e.params["broadcast_dimensions"]
    index = [
        at(0) if size == 1 else p.index[dim] for size, dim in zip(operand.shape, where, strict=True)
    ]
    return (yield p.ask(operand, index))


@rule("transpose")
def transpose(e: Equation, p: Point) -> Pull:
    """Another order of indices."""
    index = [at(0)] * len(p.index)
    for dim, source in enumerate(e.params["permutation"]):
        index[source] = p.index[dim]
    return (yield p.ask(e.inputs[0], index))


@rule("squeeze")
def squeeze(e: Equation, p: Point) -> Pull:
    """Drops dimensions of one element."""
    operand, rest = e.inputs[0], iter(p.index)
    gone = {dim % len(operand.shape) for dim in e.params["dimensions"]}
    index = [at(0) if dim in gone else next(rest) for dim in range(len(operand.shape))]
    return (yield p.ask(operand, index))


Group = tuple[list[int], list[int]]


def reshape_groups(old: Sequence[int], new: Sequence[int]) -> list[Group]:
    """The dimensions of a reshape in smallest groups of equal product, dimensions of one left out.

    >>> reshape_groups((4, 6, 5), (24, 1, 5))
    [([0, 1], [0]), ([2], [2])]
    """
    left = [dim for dim, size in enumerate(old) if size != 1]
    right = [dim for dim, size in enumerate(new) if size != 1]
    groups: list[Group] = []
    while left or right:
        ins, outs = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(old[d] for d in ins)) != (b := math.prod(new[d] for d in outs)):
            if a < b:
                ins.append(left.pop(0))
            else:
                outs.append(right.pop(0))
        groups.append((ins, outs))
    return groups


def _refinable(e: Equation) -> str | None:
    if e.params.get("dimensions") is not None:
        return "transposes as well"
    old, new = e.inputs[0].shape, e.outputs[0].shape
    for ins, outs in reshape_groups(old, new):
        cuts = {math.prod(old[d] for d in ins[n:]) for n in range(len(ins))}
        cuts |= {math.prod(new[d] for d in outs[n:]) for n in range(len(outs))}
        chain = sorted(cuts)
        if any(big % small for small, big in itertools.pairwise(chain)):
            return f"from {old} to {new} has no common factors"
    return None


@rule("reshape", check=_refinable)
def reshape(e: Equation, p: Point) -> Pull:
    """Merges and splits dimensions: each group's flat index, divided again."""
    old, new = e.inputs[0].shape, e.outputs[0].shape
    index = [at(0)] * len(old)
    for ins, outs in reshape_groups(old, new):
        flat = at(0)
        for dim in outs:
            flat = flat * new[dim] + p.index[dim]
        for dim in reversed(ins[1:]):
            flat, index[dim] = divmod_index(flat, old[dim])
        index[ins[0]] = flat
    return (yield p.ask(e.inputs[0], index))


@rule("slice")
def slice_(e: Equation, p: Point) -> Pull:
    """start + stride * i."""
    starts = e.params["start_indices"]
    strides = e.params["strides"] or (1,) * len(starts)
    index = [
        ix * int(stride) + int(start)
        for ix, start, stride in zip(p.index, starts, strides, strict=True)
    ]
    return (yield p.ask(e.inputs[0], index))


@rule("rev")
def rev(e: Equation, p: Point) -> Pull:
    """size - 1 - i."""
    index = list(p.index)
    for dim in e.params["dimensions"]:
        index[dim] = index[dim] * -1 + (e.inputs[0].shape[dim] - 1)
    return (yield p.ask(e.inputs[0], index))


@rule("split")
def split(e: Equation, p: Point) -> Pull:
    """Output n starts where the outputs before it end."""
    axis = e.params["axis"]
    start = sum(int(size) for size in e.params["sizes"][: p.position])
    index = [ix + start if dim == axis else ix for dim, ix in enumerate(p.index)]
    return (yield p.ask(e.inputs[0], index))


@rule("unstack")
def unstack(e: Equation, p: Point) -> Pull:
    """Output n is element n of a dimension."""
    axis = e.params["axis"]
    return (yield p.ask(e.inputs[0], [*p.index[:axis], at(p.position), *p.index[axis:]]))


@rule("stack")
def stack(e: Equation, p: Point) -> Pull:
    """The operand that the index names."""
    axis = e.params["axis"]
    where, rest = p.index[axis], [*p.index[:axis], *p.index[axis + 1 :]]
    result: Node | None = None
    for number in reversed(range(len(e.inputs))):
        low, high = index_range(where)
        if number < low or number > high:
            continue
        node = yield p.ask(e.inputs[number], rest)
        here = compare("lt", where, number + 1)
        result = node if result is None else pointwise("where", (here, node, result))
    assert result is not None
    return result


@rule("tile")
def tile(e: Equation, p: Point) -> Pull:
    """The index modulo the operand's size."""
    index = [divmod_index(ix, size)[1] for ix, size in zip(p.index, e.inputs[0].shape, strict=True)]
    return (yield p.ask(e.inputs[0], index))


@rule("concatenate")
def concatenate(e: Equation, p: Point) -> Pull:
    """The piece that holds the index; pieces that cannot hold it are not looked at."""
    axis = e.params["dimension"]
    where, start = p.index[axis], e.outputs[0].shape[axis]
    result: Node | None = None
    for operand in reversed(e.inputs):
        size = operand.shape[axis]
        end, start = start, start - size
        low, high = index_range(where)
        if size == 0 or high < start or low >= end:
            continue
        index = [where + -start if dim == axis else ix for dim, ix in enumerate(p.index)]
        node = yield p.ask(operand, index, [Within(where + -start, 0, size)])
        here = compare("lt", where, end)
        result = node if result is None else pointwise("where", (here, node, result))
    assert result is not None
    return result


def _no_holes(e: Equation) -> str | None:
    holes = any(interior for _, _, interior in e.params["padding_config"])
    return "has interior padding" if holes else None


@rule("pad", check=_no_holes)
def pad(e: Equation, p: Point) -> Pull:
    """The padding value outside the operand; negative padding only cuts."""
    operand, value = e.inputs
    index: list[Index] = []
    guards: list[Within] = []
    for ix, size, (low, _, _) in zip(
        p.index, operand.shape, e.params["padding_config"], strict=True
    ):
        index.append(ix + -int(low))
        guards.append(Within(index[-1], 0, size))
    return (yield from guarded(p, guards, p.ask(operand, index, guards), p.ask(value, ())))


@rule("iota")
def iota(e: Equation, p: Point) -> Pull:
    """The index itself."""
    yield from ()
    index, dtype = p.index[e.params["dimension"]], e.outputs[0].dtype
    if dtype in FLOATS:
        return pointwise("cast", (node_of(index),), dtype)
    return cast(node_of(index), dtype)
