"""What the constants of a candidate stand for, in terms of the program's own.

In: the terms of a program and of a candidate. Out: a table from constants that only the candidate
  has to exact numbers made of the program's. Entries differ from the constant by its own rounding
  at most.

A search folds constants in float64: x / c becomes x * c' with c' the rounded 1/c, and no algebra
over exact numbers makes the two equal. Where c' is a small fraction times powers of the program's
constants, up to float64's rounding, it is read as just that. Numbers that are within rounding of a
fraction, or of a multiple of log 2, need no entry (`modular`).

>>> from prism_jax.ir.nodes import Const
>>> c, inverse = Const(math.sqrt(8), REAL), Const(1 / math.sqrt(8), REAL)
>>> spelled([c], [inverse])[inverse.value] == 1 / Fraction(c.value)
True
>>> spelled([c], [Const(0.3535, REAL)])
{}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TypeAlias

from prism_jax.ir.nodes import REAL, Const, Node
from prism_jax.ir.program import walk
from prism_jax.ir.sgraph import LibraryCall, SGraph
from prism_jax.verify.modular import log2_multiple, rational

Spelled: TypeAlias = Mapping[float, Fraction]
_POWERS = (-1, 1, -2, 2)
"""Inverses first: 1/sqrt(8) is also sqrt(8)/8, and a quotient is what searches fold."""
_SMALL = 4096
_ROUNDING = Fraction(1, 2**50)
"""Of a few operations in float64, relative."""
_MOST = 16
"""Constants of a program that are tried; pairs of them grow with the square."""


def spelled(program: Iterable[Node], candidate: Iterable[Node]) -> dict[float, Fraction]:
    """The candidate's own constants, each a fraction times powers of one or two of the
    program's.
    """
    own = sorted(_odd(program))[:_MOST]
    found: dict[float, Fraction] = {}
    for value in sorted(_odd(candidate) - set(own)) if own else ():
        meaning = _meaning(Fraction(value), [Fraction(x) for x in own])
        if meaning is not None:
            found[value] = meaning
    return found


def terms(graph: SGraph) -> Iterator[Node]:
    """The terms of an sGraph: of kernels and of library calls."""
    for node in graph.nodes:
        yield from (s.value for s in node.stores) if isinstance(node, LibraryCall) else node.roots


def _odd(terms: Iterable[Node]) -> set[float]:
    """Finite constants that are no small fraction and no multiple of log 2."""
    values = {float(n.value) for n in walk(terms) if isinstance(n, Const) and n.sort == REAL}
    return {
        v
        for v in values
        if math.isfinite(v) and log2_multiple(v) is None and rational(v).denominator > 10**5
    }


def _meaning(value: Fraction, own: list[Fraction]) -> Fraction | None:
    powers = [x**e for x in own for e in _POWERS]
    pairs = (a * b for a, b in itertools.combinations(powers, 2))
    for product in itertools.chain(powers, pairs):
        ratio = value / product
        simple = ratio.limit_denominator(_SMALL)
        if simple and abs(ratio - simple) <= _ROUNDING * abs(ratio):
            return simple * product
    return None
