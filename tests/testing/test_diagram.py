"""The diagram commutes: what the search makes of a random program has its value."""

from __future__ import annotations

import numpy as np
from hypothesis import given, note, settings
from hypothesis import strategies as st

from prism_jax.device import ROWS
from prism_jax.explore import explore
from prism_jax.ir.check import check_sgraph
from prism_jax.ir.draw import draw_sgraph
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.text import parse_sgraph, print_sgraph
from prism_jax.options import current
from prism_jax.testing import program_inputs, programs

TILES = ((2, 3, 1, 4), (8, 8, 8, 8), (1, 5, 2, 3))


MANY = settings(max_examples=max(300, settings().max_examples))


@MANY
@given(st.data())
def test_every_sgraph_of_a_random_program_has_its_value(data):
    program = data.draw(programs(largest=5))
    inputs = data.draw(program_inputs(program))
    expected = evaluate(program, inputs)
    tiles = data.draw(st.sampled_from(TILES))
    for sgraph in explore(program, ROWS["H100"], current()).sgraphs[:8]:
        note(print_sgraph(sgraph))
        check_sgraph(sgraph)
        assert parse_sgraph(print_sgraph(sgraph)) == sgraph
        assert draw_sgraph(sgraph)
        sizes = {symbol: tiles[n % len(tiles)] for n, symbol in enumerate(sgraph.symbols)}
        found = evaluate_sgraph(sgraph, sizes, inputs)
        for e, f in zip(expected, found, strict=True):
            e, f = np.asarray(e, np.float64), np.asarray(f, np.float64)
            largest = np.max(np.abs(e), initial=1.0, where=np.isfinite(e))
            np.testing.assert_allclose(f, e, rtol=1e-9, atol=1e-9 * largest)
