"""Emitted Triton, run in the interpreter (guard bands, poisoned outputs) against the float64
oracle.
"""

from __future__ import annotations

import pytest

from prism_jax.instantiate.plan import Schedule

from .graphs import cases
from .harness import agree, expected, inputs, interpreted

EVEN = [f"{n}-{c.name}" for n, c in enumerate(cases("float32"))]
ODD = [f"{n}-{c.name}" for n, c in enumerate(cases("float32", big=False))]


@pytest.mark.parametrize("number", range(len(EVEN)), ids=EVEN)
def test_whole_tiles(number: int) -> None:
    case = cases("float16")[number]
    given = inputs(case)
    agree(case, interpreted(case, given, Schedule()), expected(case, given), "float16")


@pytest.mark.parametrize("number", range(len(ODD)), ids=ODD)
@pytest.mark.parametrize("products", ["dot", "mulsum"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_ragged_tiles(number: int, dtype: str, products: str) -> None:
    case = cases(dtype, big=False)[number]
    given = inputs(case)
    found = interpreted(case, given, Schedule(products=products))
    agree(case, found, expected(case, given), dtype)
