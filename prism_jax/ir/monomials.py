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
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prism_jax.ir.counts import Number
from prism_jax.ir.operations import PLAIN
from prism_jax.ir.tape import Tape, Traced

__all__ = ["Monomial", "Total", "monomial"]


@dataclass(slots=True)
class Monomial:
    """`factor` times the product of `columns`, which are recorded and sorted by their `places`."""

    factor: Number
    columns: tuple[Traced, ...] = ()
    places: tuple[int, ...] = ()

    def number(self) -> Number:
        """The product."""
        columns = self.columns
        if len(columns) > 1:
            columns = sorted(columns, key=_breadth)
        return functools.reduce(operator.mul, columns, self.factor)


def _breadth(column: Traced) -> tuple[int, int]:
    """In how many dimensions a number varies; by place among equals."""
    return column.varies.bit_count(), column.place


def monomial(factors: Iterable[Number]) -> Monomial:
    """The product of some factors; recorded ones with equal factors are made once."""
    plain: Number = 1
    places: list[int] = []
    tape: Tape | None = None
    for factor in factors:
        if type(factor) is Traced:
            tape = factor.tape
            places.append(factor.place)
        else:
            plain = plain * factor
    if tape is None:
        return Monomial(plain)
    places.sort()
    key = (type(plain), plain, *places)
    found = tape.products.get(key)
    if found is None:
        found = tape.products[key] = _product(tape, places, plain)
    return found


def _product(tape: Tape, places: Sequence[int], plain: Number) -> Monomial:
    fixed = [Traced(tape, place) for place in places if not tape.varies[place]]
    columns = tuple(Traced(tape, place) for place in places if tape.varies[place])
    if fixed:
        plain = functools.reduce(operator.mul, fixed) * plain
    return Monomial(plain, columns, tuple(column.place for column in columns))


class Total:
    """A sum of monomials."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Any, ...], list[Any]] = {}
        """A monomial and how often it was added."""

    def add(self, term: Monomial, times: Number = 1) -> None:
        """Adds a monomial a number of times."""
        if type(times) is not int:
            term, times = Monomial(term.factor * times, term.columns, term.places), 1
        key = term.places, _same(term.factor)
        known = self._counts.get(key)
        if known is None:
            self._counts[key] = [term, times]
        elif key[1] is None:
            factor = known[0].factor * known[1] + term.factor * times
            self._counts[key] = [Monomial(factor, term.columns, term.places), 1]
        else:
            known[1] += times

    def number(self) -> Number:
        """The sum."""
        factors: dict[tuple[int, ...], Number] = {}
        terms: dict[tuple[int, ...], Monomial] = {}
        for term, times in self._counts.values():
            factor = term.factor * times
            known = factors.get(term.places)
            factors[term.places] = factor if known is None else known + factor
            terms[term.places] = term
        shapes: dict[int, list[Number]] = {}
        for places in sorted(factors):
            term = terms[places]
            mask = functools.reduce(operator.or_, (c.varies for c in term.columns), 0)
            number = Monomial(factors[places], term.columns, places).number()
            shapes.setdefault(mask, []).append(number)
        total: Number = 0
        for mask in sorted(shapes, key=lambda m: (m.bit_count(), m)):
            total = total + _sum(shapes[mask])
        return total


def _same(factor: Number) -> Hashable:
    """Equal for equal factors; None for arrays and expressions, which are not compared."""
    if type(factor) is Traced:
        return factor.place
    return (type(factor), factor) if isinstance(factor, PLAIN) else None


def _sum(numbers: Sequence[Number]) -> Number:
    return functools.reduce(operator.add, numbers)
