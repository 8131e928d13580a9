"""Every structure that the search returns computes the program, at any sizes."""

from __future__ import annotations

import numpy as np
import pytest

from prism_jax import device
from prism_jax.explore import Form, search
from prism_jax.explore import mapping as mapping_room
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from tests.explore.functions import LARGE, SMALL, program

H100 = device.row("H100")


@pytest.mark.parametrize("name", SMALL)
def test_every_candidate_computes_the_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping_room, "LOOP_AT_LEAST", 8)  # so that small axes are looped over too
    source = program(name)
    result = search(source, [Form(source)], H100)
    random = np.random.default_rng(0)
    inputs = {t.name: random.standard_normal([int(s) for s in t.shape]) for t in source.inputs}
    expected = evaluate(source, inputs)
    for candidate in result.candidates:
        for _ in range(2):
            sizes = {s: int(2 ** random.integers(1, 6)) for s, _ in candidate.sizes}
            found = evaluate_sgraph(candidate.sgraph, sizes, inputs)
            for got, want in zip(found, expected, strict=True):
                np.testing.assert_allclose(
                    got, want, rtol=1e-7, atol=1e-9, err_msg=f"{candidate.why} {sizes}"
                )


def test_results_do_not_depend_on_the_run() -> None:
    source = program("attention", large=True)
    first, second = (search(source, [Form(source)], H100) for _ in range(2))
    assert [c.sgraph.digest for c in first.candidates] == [
        c.sgraph.digest for c in second.candidates
    ]
    assert set(LARGE) >= {"attention"}


def test_a_budget_of_nothing_still_returns_the_program() -> None:
    source = program("attention", large=True)
    result = search(source, [Form(source)], H100, seconds=0.0)
    assert result.stop == "time budget"
    assert [c.why for c in result.candidates if not c.kernels] == ["XLA"]
