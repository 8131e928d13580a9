"""Sums of products are the same for every kind of number."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy

from prism_jax.ir.monomials import Total, monomial
from prism_jax.ir.tape import Tape

N, T, S = 12, 4, 3
SYMBOLS: Any = sympy.symbols("n t s")


def total(n: Any, t: Any, s: Any) -> Any:
    """Equal monomials several times, with plain coefficients and others, in any order."""
    found = Total()
    for factors, times in (
        ([n, t], 1), ([t, n], 8), ([n, 2], 1), ([n, s, t], n), ([2, n], 3), ([5], 2), ([s, s], 1),
        ([n, t, s], n), ([5], 1), ([t], n),
    ):  # fmt: skip
        found.add(monomial(factors), times)
    return found.number()


EXPECTED = 9 * N * T + 8 * N + 2 * N * N * S * T + 15 + S * S + N * T


def test_numbers() -> None:
    assert total(N, T, S) == EXPECTED


def test_arrays() -> None:
    n, t, s = (np.array([1, size]) for size in (N, T, S))
    assert total(n, t, s).tolist() == [total(1, 1, 1), EXPECTED]
    assert total(N, t, s).tolist() == [total(N, 1, 1), EXPECTED]


def test_expressions() -> None:
    value = total(*SYMBOLS).subs(dict(zip(SYMBOLS, (N, T, S), strict=True)))
    assert value == EXPECTED


def test_recorded_numbers() -> None:
    """Also where some vary with tiles; equal monomials are recorded as one."""
    tape = Tape()
    n, t, s = tape.symbol("n"), tape.symbol("t", 2), tape.symbol("s", 1)
    sizes = {"n": N, "t": np.array([[1], [T]]), "s": np.array([1, S])}
    [found] = tape.run(sizes, [total(n, t, s)])
    assert found.tolist() == [[total(N, 1, 1), total(N, 1, S)], [total(N, T, 1), EXPECTED]]
    length = len(tape)
    total(n, t, s)
    assert len(tape) == length
