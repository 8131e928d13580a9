"""Values with named dimensions: what the interpreters of `ir/` compute with.

A `Named` is an array whose dimensions are labelled by axes, sorted by name, so that broadcasting is
by name. A `Binding` says which values an axis takes: all of them, a tile of them, or one per
sampled point. `align` gives arrays that NumPy can broadcast; `contract` multiplies any number of
factors and sums labels away by matrix products, without building the product.

>>> i, k = Axis("i", 2), Axis("k", 3)
>>> a, b = Named((i, k), np.ones((2, 3))), Named((k,), np.arange(3.0))
>>> contract(FLOAT64, REAL, [a, b], (k,)).array
array([3., 3.])
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from prism_jax.ir.nodes import REAL, Axis, Parameter
from prism_jax.ir.ops import MONOIDS, OPS

Array: TypeAlias = Any
"""A NumPy array; element access on NumPy's own types is what strict checkers understand least."""

POINTS = Axis("*points", 0)
"""The label of the one dimension that enumerates sampled output elements."""


@dataclass(frozen=True, eq=False)
class Named:
    """An array whose dimensions carry the labels, which are sorted by name."""

    labels: tuple[Axis, ...]
    array: Array


class Binding:
    """The values an axis takes. What is computed under it is remembered in it."""

    _serials = itertools.count()

    def __init__(self, label: Axis, values: Array, start: int | None = None) -> None:
        self.label = label
        self.values = values
        self.start = start  # the values are start, start + 1, ... ; None: any values
        self.serial = next(Binding._serials)  # younger bindings have larger ones
        self.memo: dict[Any, Named] = {}

    @staticmethod
    def span(axis: Axis, start: int, stop: int) -> Binding:
        """The values start, ..., stop - 1 along a dimension of their own."""
        return Binding(axis, np.arange(start, stop), start)

    def __len__(self) -> int:
        return len(self.values)


class Domain(Protocol):
    """A meaning of values: numbers in float64, or residues in a pair of finite fields."""

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor, as values of the sort."""
        ...

    def const(self, value: bool | int | float, sort: str) -> Array:
        """A number, as a value."""
        ...

    def iota(self, values: Array, sort: str) -> Array:
        """Integers, as values of the sort."""
        ...

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table."""
        ...

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions."""
        ...

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        ...

    def identity(self, monoid: str, sort: str) -> Array:
        """The monoid's identity."""
        ...

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product."""
        ...

    def poison(self, shape: tuple[int, ...], sort: str) -> Array:
        """An array that nobody should read before it is written."""
        ...


class Float64:
    """Reals are float64; integers and booleans keep their dtype, integers modulo 2^n."""

    def load(self, array: Array, sort: str) -> Array:
        """Elements of a tensor, as values of the sort."""
        return np.asarray(array, np.float64 if sort == REAL else np.dtype(sort))

    def const(self, value: bool | int | float, sort: str) -> Array:
        """A number, as a value."""
        if sort == REAL or sort == "bool":
            return np.asarray(value, np.float64 if sort == REAL else np.bool_)
        bits = np.dtype(sort).itemsize * 8
        return np.asarray(int(value) % (1 << bits), np.dtype(f"uint{bits}")).astype(sort)

    def iota(self, values: Array, sort: str) -> Array:
        """Integers, as values of the sort."""
        return values.astype(np.float64 if sort == REAL else np.dtype(sort))

    def pointwise(self, op: str, parameter: Parameter, args: Sequence[Array]) -> Array:
        """A row of the operator table."""
        return np.asarray(OPS[op].f64(parameter, *args))

    def reduce(self, monoid: str, sort: str, array: Array, dims: tuple[int, ...]) -> Array:
        """A monoid over some dimensions."""
        return np.asarray(MONOIDS[monoid].reduce(array, dims))

    def combine(self, monoid: str, sort: str, a: Array, b: Array) -> Array:
        """a (+) b."""
        with np.errstate(all="ignore"):
            return np.asarray(MONOIDS[monoid].combine(a, b))

    def identity(self, monoid: str, sort: str) -> Array:
        """The monoid's identity."""
        return self.const(MONOIDS[monoid].identity(sort), sort)

    def matmul(self, a: Array, b: Array) -> Array:
        """A batched matrix product."""
        with np.errstate(all="ignore"):
            return np.matmul(a, b)

    def poison(self, shape: tuple[int, ...], sort: str) -> Array:
        """An array that nobody should read before it is written."""
        if sort == REAL:
            return np.full(shape, np.nan)
        return np.full(shape, 1 if sort == "bool" else np.iinfo(sort).max, np.dtype(sort))


FLOAT64 = Float64()


def union(groups: Iterable[Iterable[Axis]]) -> tuple[Axis, ...]:
    """All labels, sorted by name."""
    return tuple(sorted({label for group in groups for label in group}))


def align(values: Sequence[Named], labels: tuple[Axis, ...] | None = None) -> list[Array]:
    """The arrays with size-1 dimensions put in, so that they broadcast over `labels` (default:
    their union).
    """
    labels = union(v.labels for v in values) if labels is None else labels
    arrays: list[Array] = []
    for value in values:
        if value.labels == labels or not value.labels:
            arrays.append(value.array)
        else:
            have = set(value.labels)
            arrays.append(value.array[tuple(slice(None) if x in have else None for x in labels)])
    return arrays


def sizes(values: Sequence[Named]) -> dict[Axis, int]:
    """The size of every label."""
    return {x: n for v in values for x, n in zip(v.labels, v.array.shape, strict=True)}


def order(labels: Sequence[Axis], array: Array) -> Named:
    """The named array with its dimensions put in order."""
    positions = sorted(range(len(labels)), key=lambda n: labels[n])
    if positions != list(range(len(labels))):
        array = array.transpose(positions)
    return Named(tuple(labels[n] for n in positions), array)


def pairing(
    groups: Sequence[tuple[Axis, ...]], gone: Sequence[Axis], size: dict[Axis, int]
) -> tuple[list[tuple[int, int]], int]:
    """In which order to multiply factors with these labels, greedily by cost; and the largest
    intermediate.

    Each step names two positions; the product replaces the first and the second is removed.
    """
    terms, steps, largest = [set(g) for g in groups], list[tuple[int, int]](), 0
    while len(terms) > 1:
        best: tuple[int, int, int, int, set[Axis]] | None = None
        for a, b in itertools.combinations(range(len(terms)), 2):
            others = set[Axis]().union(*(t for n, t in enumerate(terms) if n not in (a, b)))
            kept = {x for x in terms[a] | terms[b] if x not in gone or x in others}
            cost = math.prod(size[x] for x in terms[a] | terms[b])
            found = (cost, math.prod(size[x] for x in kept), a, b, kept)
            if best is None or found[:4] < best[:4]:
                best = found
        assert best is not None
        _, made, a, b, kept = best
        largest = max(largest, made)
        steps.append((a, b))
        terms[a] = kept
        del terms[b]
    return steps, largest


def contract(domain: Domain, sort: str, factors: Sequence[Named], gone: Sequence[Axis]) -> Named:
    """The sum over the labels `gone` of the product of the factors."""
    terms = list(factors)
    steps, _ = pairing([t.labels for t in terms], gone, sizes(terms))
    for a, b in steps:
        others = {x for n, t in enumerate(terms) if n not in (a, b) for x in t.labels}
        terms[a] = _product(domain, sort, terms[a], terms[b], {x for x in gone if x not in others})
        del terms[b]
    return _sum_out(domain, sort, terms[0], set(gone))


def _sum_out(domain: Domain, sort: str, value: Named, gone: set[Axis]) -> Named:
    dims = tuple(n for n, x in enumerate(value.labels) if x in gone)
    if not dims:
        return value
    kept = tuple(x for x in value.labels if x not in gone)
    return Named(kept, domain.reduce("sum", sort, value.array, dims))


def _product(domain: Domain, sort: str, a: Named, b: Named, gone: set[Axis]) -> Named:
    """Sum over `gone` of a * b, as one (batched) matrix product where something is summed."""
    a = _sum_out(domain, sort, a, gone - set(b.labels))
    b = _sum_out(domain, sort, b, gone - set(a.labels))
    shared = [x for x in a.labels if x in b.labels]
    summed = [x for x in shared if x in gone]
    if not summed:
        labels = union([a.labels, b.labels])
        return Named(labels, domain.pointwise("mul", None, align([a, b], labels)))
    batch = [x for x in shared if x not in gone]
    rows = [x for x in a.labels if x not in shared]
    columns = [x for x in b.labels if x not in shared]
    size = sizes([a, b])

    def matrix(value: Named, *groups: list[Axis]) -> Array:
        moved = value.array.transpose([value.labels.index(x) for g in groups for x in g])
        return moved.reshape(
            [size[x] for x in batch] + [math.prod(size[x] for x in g) for g in groups[1:]]
        )

    product = domain.matmul(matrix(a, batch, rows, summed), matrix(b, batch, summed, columns))
    labels = [*batch, *rows, *columns]
    return order(labels, product.reshape([size[x] for x in labels]))
