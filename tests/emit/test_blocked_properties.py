"""Blocked lax is what an instantiated sGraph means: any sizes, any structure that the search finds.

The oracle is the float64 evaluation of the same sGraph at the same sizes, or of the program.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prism_jax import device
from prism_jax.emit import lax_blocks
from prism_jax.explore import Form, search
from prism_jax.explore import mapping as mapping_room
from prism_jax.ir.program import Program
from prism_jax.testing.arrays import program_inputs
from prism_jax.testing.programs import programs

from .graphs import Case, cases, kmeans
from .harness import agree, expected, inputs
from .test_properties import check, wide

CASES = {dtype: cases(dtype, big=False) for dtype in ("float32", "bfloat16")}
MANY = settings(max_examples=max(180, settings().max_examples))
"""With the 60 of `test_any_sizes` and of `test_properties.test_blocked_lax`, 300 by default."""


@given(
    number=st.integers(0, len(CASES["float32"]) - 1),
    dtype=st.sampled_from(sorted(CASES)),
    unroll=st.sampled_from([0, 8]),
    cut=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_sizes(
    number: int, dtype: str, unroll: int, cut: bool, seed: int, data: st.DataObject
) -> None:
    """Ragged tiles, tiles of one element, more parts than steps, inner loops, argmin."""
    case = CASES[dtype][number]
    # As many parts as drawn; tiles of any length, also longer than the axis.
    sizes = {s: data.draw(st.integers(1, 5 if s.startswith("S") else 70), s) for s in case.sizes}
    case = Case(case.sgraph, sizes)
    arrays = inputs(case, seed)
    function = lax_blocks.emit(case.sgraph, case.sizes, unroll, cut)
    found = jax.jit(function.call)(*(arrays[t.name] for t in case.sgraph.inputs))
    agree(case, found, expected(case, arrays), dtype)


@given(program=programs(), unroll=st.sampled_from([0, 8]), cut=st.booleans(), data=st.data())
@MANY
def test_any_found_structure(program: Program, unroll: int, cut: bool, data: st.DataObject) -> None:
    """Loops, cascades, splits and several kernels of random programs, at random sizes."""
    program = wide(program)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping_room, "LOOP_AT_LEAST", 2)  # so that small axes are looped over
        found = search(program, [Form(program)], device.row("H100"), 1.0)
    ours = [c for c in found.candidates if c.kernels]
    assume(ours)
    candidate = data.draw(st.sampled_from(ours))
    tile = st.sampled_from([1, 2, 3, 4, 7, 16])
    parts = st.integers(2, 4)
    symbols = candidate.sgraph.symbols
    sizes = {s: data.draw(parts if s.startswith("S_") else tile, s) for s in symbols}
    arrays = data.draw(program_inputs(program))
    with jax.enable_x64(True):
        function = lax_blocks.emit(candidate.sgraph, sizes, unroll, cut)
        results = jax.jit(function.call)(*(arrays[t.name] for t in candidate.sgraph.inputs))
    check(program, arrays, results, f"{candidate.sgraph}\n{sizes}\n{function.source}")


@pytest.mark.parametrize("kind", ["argmin", "argmax"])
def test_the_first_of_equals_and_of_nans(kind: str) -> None:
    """As jax: the first NaN is the best there is, an earlier index wins ties, across tiles too."""
    case = kmeans(40, 19, 8, "float32", nearest=kind == "argmin").tiles(T_i=16, T_j=4)
    arrays = inputs(case)
    call = jax.jit(lax_blocks.emit(case.sgraph, case.sizes).call)
    for step, centres in enumerate(_ties_and_nans(arrays["c"])):
        (found,) = call(arrays["x"], centres)
        (wanted,) = expected(case, {**arrays, "c": centres})
        np.testing.assert_array_equal(np.asarray(found), wanted, err_msg=f"{kind}, {step}")
        if step:
            assert (np.asarray(found) == 5).all()


def _ties_and_nans(centres: Any) -> list[Any]:
    """Each centre three times; one NaN; two NaNs in different tiles."""
    assert centres.shape[0] == 19
    nan, two = centres.copy(), centres.copy()
    nan[5] = np.nan
    two[[5, 13]] = np.nan
    return [np.repeat(centres, 3, axis=0)[:19], nan, two]
