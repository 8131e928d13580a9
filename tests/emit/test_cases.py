"""The hand-written sGraphs mean what they are named after: blocks or none, the oracle gives the
same.
"""

from __future__ import annotations

import numpy as np
import pytest

from prism_jax.ir.evaluate import evaluate_sgraph

from .graphs import Case, cases
from .harness import inputs


@pytest.mark.parametrize(
    "case", [*cases("float32"), *cases("float32", big=False)], ids=lambda c: c.name
)
def test_blocks_do_not_change_the_value(case: Case) -> None:
    given = inputs(case)
    tiled = evaluate_sgraph(case.sgraph, case.sizes, given)
    whole = evaluate_sgraph(case.sgraph, case.sizes, given, blocks=False)
    for a, b in zip(tiled, whole, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
