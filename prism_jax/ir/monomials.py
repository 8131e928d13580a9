"""Sums of products of sizes, multiplied out as late as possible.

In: factors, of any kind of number. Out: their product or a sum of such products. Recorded numbers
that vary with tile sizes (`Tape.varies`) are kept apart from those that do not: what is counted for
each of a hundred nodes is a handful of products of columns with a plain coefficient each, and
columns of one shape are added before they are spread over others. Counts are integers, so the order
changes no value.

>>> total = Total()
>>> total.add(monomial([2, 3])), total.add(monomial([5]), 10)
(None, None)
>>> total.number()
56
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prism_jax.ir.counts import Number
from prism_jax.ir.tape import Traced

__all__ = ["Monomial", "Total", "monomial"]


@dataclass(frozen=True)
class Monomial:
    """`factor` times the product of `columns`, which are recorded and sorted by their `places`."""

    factor: Number
    columns: tuple[Traced, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(column.place for column in self.columns)

    def number(self) -> Number:
        """The product."""
        return functools.reduce(operator.mul, sorted(self.columns, key=_breadth), self.factor)


def _breadth(column: Traced) -> tuple[int, int]:
    """In how many dimensions a number varies; by place among equals."""
    return column.varies.bit_count(), column.place


def _place(number: Traced) -> int:
    return number.place


def monomial(factors: Iterable[Number]) -> Monomial:
    """The product of some factors."""
    plain: Number = 1
    fixed, columns = list[Traced](), list[Traced]()
    for factor in factors:
        if isinstance(factor, Traced):
            (columns if factor.varies else fixed).append(factor)
        else:
            plain = plain * factor
    if fixed:
        plain = functools.reduce(operator.mul, sorted(fixed, key=_place)) * plain
    return Monomial(plain, tuple(sorted(columns, key=_place)))


class Total:
    """A sum of monomials."""

    def __init__(self) -> None:
        self._terms: dict[tuple[int, ...], Monomial] = {}

    def add(self, term: Monomial, times: Number = 1) -> None:
        """Adds a monomial a number of times."""
        places = term.places
        factor = term.factor * times
        known = self._terms.get(places)
        if known is not None:
            factor = known.factor + factor
        self._terms[places] = Monomial(factor, term.columns)

    def number(self) -> Number:
        """The sum."""
        shapes: dict[int, list[Monomial]] = {}
        for places in sorted(self._terms):
            term = self._terms[places]
            mask = functools.reduce(operator.or_, (c.varies for c in term.columns), 0)
            shapes.setdefault(mask, []).append(term)
        total: Number = 0
        for mask in sorted(shapes, key=lambda m: (m.bit_count(), m)):
            total = total + _sum([term.number() for term in shapes[mask]])
        return total


def _sum(numbers: Sequence[Number]) -> Number:
    return functools.reduce(operator.add, numbers)
