"""How the effect of rounding is computed: in blocks and in threads, always with the same result."""

from __future__ import annotations

import numpy as np
import pytest

from prism_jax.ir.nodes import Axis
from prism_jax.verify import effort, luck
from prism_jax.verify.draws import draws
from prism_jax.verify.measure import rows
from prism_jax.verify.sample import choose, oracle
from tests.verify.build import div, exp, out, program, red, sub, t, total

I, K = Axis("i", 24), Axis("k", 96)  # noqa: E741


def ratios() -> np.ndarray:
    """Of a softmax with one wrong row."""
    x = t("x", I, K)
    e = exp(sub(x, red("max", x, K)))
    whole = program("softmax", out(div(e, total(e, K)), I, K))
    samples = choose(whole, 1 << 30, 0)
    inputs = draws()[4].inputs(whole)
    [o] = oracle(whole, inputs, samples)
    r = o.astype(np.float32).astype(np.float64)
    c = r.copy()
    c[3, 5] += 1e-5
    found = rows(o, r, c, "float32", 2.0)
    assert (found.ratio > 1).any()
    return luck.ratios(whole, inputs, 0, samples[0], found, seed=0)


def test_noise_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ratios()
    assert np.isfinite(whole).any()
    monkeypatch.setattr(luck, "_BLOCK", 7)
    np.testing.assert_array_equal(ratios(), whole)


def test_long_moves_give_the_same_on_any_number_of_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = ratios()
    monkeypatch.setattr(luck, "_LONG", 0)
    found: list[np.ndarray] = []
    for count in (1, 3, 16):
        monkeypatch.setattr(effort, "cores", lambda count=count: count)
        found.append(ratios())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    finite = np.isfinite(short)
    np.testing.assert_allclose(found[0][finite], short[finite], rtol=1.0)


def test_evaluations_at_once_fit_the_processors_and_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(effort, "cores", lambda: 16)
    assert effort.evaluators(effort.Work(1, 1, 1), 8) == 8
    assert effort.evaluators(effort.Work(1, 1, 1), 99) == 16
    assert effort.evaluators(effort.Work(1, 1, 1 << 50), 8) == 1
    monkeypatch.delattr(effort.os, "sysconf")
    assert effort.evaluators(effort.Work(1, 1, 1), 8) == 1
