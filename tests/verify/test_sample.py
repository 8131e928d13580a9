"""Sampled oracles: the same elements as whole ones, for every shape of store."""

from __future__ import annotations

import numpy as np
import pytest

from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import Axis, Iota, Load, Store, Tensor, affine, at
from prism_jax.ir.program import Program
from prism_jax.verify.sample import Sample, choose, cost, oracle
from tests.verify.build import add, causal, div, exp, mul, op, out, program, red, sub, t, total

B, H, I, J, D = Axis("b", 2), Axis("h", 3), Axis("i", 40), Axis("j", 50), Axis("d", 8)  # noqa: E741


def attention() -> Program:
    """Output b i (h d): the last dimension is two axes, the columns' name is bound elsewhere."""
    s = causal(I, J, total(mul(t("q", B, H, I, D), t("k", B, H, J, D)), D))
    p = exp(sub(s, red("max", s, J)))
    value = total(mul(div(p, total(p, J)), t("v", B, H, J, D)), J)
    tensor = Tensor("y", (2, 40, 24), "float32")
    return program("attention", Store(tensor, (at(B), at(I), affine([(H, 8), (D, 1)])), value))


def positions() -> Program:
    x = Tensor("x", (40,), "float32")
    shifted = Load(x, (affine([(I, -1)], 39),))
    value = mul(add(shifted, op("cast", Iota(J), parameter="float32")), op("exp", t("z", J)))
    return program("positions", out(value, I, J), out(total(value, I, J), name="s"))


def vector() -> Program:
    x = t("x", I, J)
    return program(
        "vector", out(total(x, J), I), out(red("argmax", x, I), J, name="a", dtype="int32")
    )


PROGRAMS = [attention(), positions(), vector()]


def inputs(whole: Program) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {x.name: tuple(int(s) for s in x.shape) for x in whole.inputs}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("whole", PROGRAMS, ids=lambda p: p.name)
@pytest.mark.parametrize("budget", [10, 3000, 1 << 30])
def test_samples_are_elements_of_the_whole(whole, budget):
    given = inputs(whole)
    samples = choose(whole, budget, seed=1)
    expected = evaluate(whole, given)
    for sample, part, all_of_it in zip(
        samples, oracle(whole, given, samples), expected, strict=True
    ):
        np.testing.assert_allclose(part, sample.of(all_of_it), rtol=1e-12)
        flat = np.arange(part.size)[:: max(1, part.size // 7)]
        coordinates = sample.points(flat)
        np.testing.assert_allclose(all_of_it[tuple(coordinates.T)], part.reshape(-1)[flat])
    if budget == 1 << 30:
        assert all(s.whole for s in samples)


def test_rows_can_be_restricted():
    whole = attention()
    given = inputs(whole)
    [sample] = choose(whole, 10, seed=1)
    few = sample.restricted(np.array([2, 0]))
    [both] = oracle(whole, given, [sample])
    [part] = oracle(whole, given, [few])
    np.testing.assert_allclose(part, both[[2, 0]])
    everything = Sample((2, 40, 24), 24).restricted(np.array([41]))
    np.testing.assert_allclose(
        oracle(whole, given, [everything])[0][0], evaluate(whole, given)[0][1, 1]
    )


def test_a_row_shares_its_work():
    long = Axis("j", 4096)
    heads, rows = Axis("h", 16), Axis("i", 4096)
    s = total(mul(t("q", heads, rows, D), t("k", heads, long, D)), D)
    p = exp(sub(s, red("max", s, long)))
    whole = program("a", out(total(mul(p, t("v", heads, long, D)), long), heads, rows, D))
    [sample] = choose(whole, 1 << 21, seed=0)
    assert sample.rows is not None
    assert len(sample.rows) >= 8
    assert cost(whole.outputs[0]) > 1 << 30
