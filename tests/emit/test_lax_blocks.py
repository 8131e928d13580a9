"""Blocked lax against the float64 oracle: values, odd sizes, and temporaries no larger than
tiles.
"""

from __future__ import annotations

from typing import Any

import jax
import pytest

from prism_jax.emit import lax_blocks

from .graphs import Case, cases
from .harness import agree, expected, inputs

EVEN = [f"{n}-{c.name}" for n, c in enumerate(cases("float32"))]
ODD = [f"{n}-{c.name}" for n, c in enumerate(cases("float32", big=False))]


def run(case: Case, given: dict[str, Any], unroll: int = 0) -> tuple[Any, ...]:
    function = lax_blocks.emit(case.sgraph, case.sizes, unroll)
    return jax.jit(function.call)(*(given[t.name] for t in case.sgraph.inputs))


@pytest.mark.parametrize("number", range(len(EVEN)), ids=EVEN)
def test_whole_tiles(number: int) -> None:
    case = cases("float16")[number]
    given = inputs(case)
    agree(case, run(case, given), expected(case, given), "float16")


@pytest.mark.parametrize("number", range(len(ODD)), ids=ODD)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ragged_tiles(number: int, dtype: str) -> None:
    case = cases(dtype, big=False)[number]
    given = inputs(case)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = run(case, given, unroll=8 if number % 2 else 0)
    agree(case, found, expected(case, given), dtype)
