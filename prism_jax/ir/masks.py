"""Masks as inequalities between positions.

In: a boolean node. Out: the `Atom`s that it is the conjunction of, or None where it is no
conjunction of affine inequalities.

>>> from prism_jax.ir.nodes import Axis, Iota
>>> i, j = Axis("i", 8), Axis("j", 8)
>>> (atom,) = atoms(Pointwise("le", (Iota(j), Iota(i)))) or ()
>>> atom.coefficients, atom.constant
(((Axis(name='i', size=8), 1), (Axis(name='j', size=8), -1)), 0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prism_jax.ir.nodes import Axis, Const, Iota, Node, Pointwise

__all__ = ["Atom", "atoms", "share"]

MOST = 256
"""Positions along an axis that are looked at; of more, evenly spaced ones."""


@dataclass(frozen=True)
class Atom:
    """The predicate `sum(coefficient * axis) + constant >= 0`."""

    coefficients: tuple[tuple[Axis, int], ...]
    constant: int

    def of(self, axis: Axis) -> int:
        """The coefficient of an axis."""
        return dict(self.coefficients).get(axis, 0)


def atoms(mask: Node) -> tuple[Atom, ...] | None:
    """The inequalities that a mask is the conjunction of, or None."""
    if not isinstance(mask, Pointwise):
        return None
    if mask.op == "and":
        left, right = (atoms(arg) for arg in mask.args)
        return None if left is None or right is None else (*left, *right)
    if mask.op not in ("le", "lt", "ge", "gt", "eq"):
        return None
    left, right = (_affine(arg) for arg in mask.args)
    if left is None or right is None:
        return None
    if mask.op == "eq":
        return (_atom(left, right, 0), _atom(right, left, 0))
    if mask.op in ("ge", "gt"):
        left, right = right, left
    return (_atom(right, left, -1 if mask.op in ("lt", "gt") else 0),)


Affine = tuple[dict[Axis, int], int]


def _atom(larger: Affine, smaller: Affine, slack: int) -> Atom:
    total = dict(larger[0])
    for axis, coefficient in smaller[0].items():
        total[axis] = total.get(axis, 0) - coefficient
    kept = sorted((axis, c) for axis, c in total.items() if c)
    return Atom(tuple(kept), larger[1] - smaller[1] + slack)


def _affine(node: Node) -> Affine | None:
    match node:
        case Iota():
            return {node.axis: 1}, 0
        case Const() if node.sort not in ("real", "bool"):
            return {}, int(node.value)
        case Pointwise("cast") if node.sort.startswith("int"):
            return _affine(node.args[0])
        case Pointwise("neg"):
            found = _affine(node.args[0])
            return None if found is None else _scaled(found, -1)
        case Pointwise("add" | "sub"):
            left, right = (_affine(arg) for arg in node.args)
            if left is None or right is None:
                return None
            right = _scaled(right, -1) if node.op == "sub" else right
            total = dict(left[0])
            for axis, coefficient in right[0].items():
                total[axis] = total.get(axis, 0) + coefficient
            return total, left[1] + right[1]
        case Pointwise("mul"):
            for one, other in (node.args, node.args[::-1]):
                found = _affine(other)
                if isinstance(one, Const) and found is not None:
                    return _scaled(found, int(one.value))
            return None
        case _:
            return None


def _scaled(value: Affine, factor: int) -> Affine:
    return {axis: c * factor for axis, c in value[0].items()}, value[1] * factor


def share(known: Sequence[Atom], axis: Axis, extent: Callable[[Axis], int]) -> float:
    """The share of the positions along an axis that lie between the first and the last one where
    the inequalities hold, on average over the positions of the other axes; inequalities in which
    the axis has another coefficient than 1 or -1 are taken to hold.

    >>> i, j = Axis("i", 8), Axis("j", 8)
    >>> share(atoms(Pointwise("le", (Iota(j), Iota(i)))) or (), j, lambda a: 8)
    0.5625
    """
    others = sorted({a for atom in known for a, _ in atom.coefficients} - {axis})
    size = extent(axis)
    first, last = np.array(0.0), np.array(size - 1.0)
    for atom in known:
        way = atom.of(axis)
        if abs(way) != 1:
            continue
        rest = np.array(float(atom.constant))
        for place, other in enumerate(others):
            count = extent(other)
            some = np.unique(np.linspace(0, count - 1, min(count, MOST)).round())
            rest = rest + atom.of(other) * some.reshape([-1] + [1] * place)
        if way < 0:
            last = np.minimum(last, rest)
        else:
            first = np.maximum(first, -rest)
    return float(np.maximum(0.0, last - first + 1).mean()) / size if size else 1.0
