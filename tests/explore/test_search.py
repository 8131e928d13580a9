"""Every structure that the search returns computes the program, at any sizes; and it finds the
structures that are known to be best.
"""

from __future__ import annotations

import time

import jax.numpy as jnp
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


def _found(name: str, kernels: int, words: str) -> tuple[float, float]:
    """XLA's estimate over that of the best plan of so many kernels whose structure has these words,
    and the search's seconds.
    """
    source = program(name, large=True, dtype=jnp.float16)
    started = time.perf_counter()
    result = search(source, [Form(source)], H100)
    seconds = time.perf_counter() - started
    xla = next(c.estimate for c in result.candidates if c.why == "XLA")
    ours = [
        c
        for c in result.candidates
        if c.kernels == kernels == len(c.sgraph.nodes) and words in c.why
    ]
    assert ours, [c.why for c in result.candidates]
    return xla / ours[0].estimate, seconds


@pytest.mark.parametrize(
    ("name", "kernels", "words"),
    [
        ("attention", 2, "3 accumulators, 2 rescaled, split over"),
        ("attention_b16", 1, "3 accumulators, 2 rescaled"),
        ("qk_norm_attention", 2, "3 accumulators, 2 rescaled, split over"),
        ("log_sum_exp", 1, "2 accumulators, 1 rescaled"),
        ("rms_norm_linear", 1, "2 accumulators"),
        ("rms_norm_mlp", 1, "3 accumulators"),
        ("gated_mlp", 1, "2 accumulators"),
        ("kernel_sum", 2, "1 accumulators, split over"),
        ("nearest", 1, "1 accumulators"),
    ],
)
def test_known_structures_are_found(name: str, kernels: int, words: str) -> None:
    gain, seconds = _found(name, kernels, words)
    assert gain > 0.8
    assert seconds < 3.0  # 0.05 to 0.5 s on a quiet machine


def test_lora_is_one_kernel() -> None:
    source = program("lora", large=True, dtype=jnp.float16)
    best = search(source, [Form(source)], H100).candidates[0]
    assert best.kernels == 1
    assert len(best.sgraph.nodes) == 1


def test_layer_norm_linear_is_one_kernel() -> None:
    gain, _ = _found("layer_norm_linear", 1, "accumulators; loop")
    assert gain > 0


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
