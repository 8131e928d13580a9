"""The finite-field test: equal for right sGraphs, different for wrong ones, outside where it must
be.
"""

from __future__ import annotations

import numpy as np
import pytest

from prism_jax.ir.nodes import Axis, Iota, Load, Store, Tensor, affine, at
from prism_jax.ir.program import Program
from prism_jax.verify import field
from prism_jax.verify.arithmetic import Outside, Redraw
from prism_jax.verify.field import FieldResult
from prism_jax.verify.modular import LARGE, SMALL, rational
from prism_jax.verify.residues import Residues
from prism_jax.verify.shrink import as_sgraph, shrink
from tests.verify.build import add, div, exp, mul, op, out, program, red, square, sub, t, total
from tests.verify.holes import HOLES
from tests.verify.pairs import all_pairs, attention, attention_split, matmul

I, J, K = Axis("i", 12), Axis("j", 20), Axis("k", 33)  # noqa: E741
PAIRS = all_pairs()


@pytest.mark.parametrize("one", PAIRS, ids=[f"{n}-{p.name}" for n, p in enumerate(PAIRS)])
def test_right_sgraphs_are_equal(one):
    result = field.test(one.program, one.sgraph)
    assert result.passed, str(result)
    assert result.trials == field.TRIALS
    assert result.heuristic < 1e-6
    assert FieldResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("hole", HOLES, ids=[h.__name__ for h in HOLES])
def test_known_holes_are_different(hole):
    result = field.test(*hole())
    assert result.outcome == "different", str(result)


def test_sizes_that_no_tile_divides_are_among_those_drawn():
    one = matmul()
    ragged = 0
    for n in range(12):
        pair = shrink(one.program, one.sgraph, np.random.default_rng(n))
        sizes = dict(pair.sizes)
        ragged += sizes["k"] % pair.symbols["T_k"] != 0
    assert ragged >= 3


@pytest.mark.parametrize("q", [*SMALL, *LARGE])
def test_the_fields_are_what_they_must_be(q):
    def prime(n: int) -> bool:
        return all(pow(a, n - 1, n) == 1 for a in (2, 3, 5, 7, 11, 13)) and n % 2 == 1

    assert prime(q)
    assert prime(2 * q + 1)
    assert q % 4 == 3
    assert (2 * q + 1) ** 2 < 2**63


def test_laws_that_hold_in_the_fields():
    f = Residues(SMALL[1], 3)
    x, y = f.draw((50,)), f.draw((50,))

    def p(name, *args, parameter=None):
        return f.pointwise(name, parameter, args)

    def same(a, b):
        shared = [s for s in "pq" if (a[s] >= 0).all() and (b[s] >= 0).all()]
        assert shared
        for s in shared:
            np.testing.assert_array_equal(a[s], b[s])

    same(p("exp", p("add", x, y)), p("mul", p("exp", x), p("exp", y)))
    same(p("log", p("exp", x)), x)
    same(p("exp", p("neg", x)), p("div", f.const(1, "real"), p("exp", x)))
    same(p("mul", p("sqrt", x), p("sqrt", y)), p("sqrt", p("mul", x, y)))
    same(p("sqrt", p("mul", x, x)), p("abs", x))
    same(p("mul", p("rsqrt", x), p("sqrt", x)), p("div", x, x))
    same(p("mul", p("sign", x), p("abs", x)), x)
    same(p("max", p("max", x, y), x), p("max", x, y))
    same(p("exp2", p("mul", x, f.const(1 / np.log(2), "real"))), p("exp", x))
    strict = Residues(SMALL[1], 3, frozenset("p"))
    with pytest.raises(Redraw):
        strict.pointwise("sqrt", None, [x])
    with pytest.raises(Redraw):
        p("div", x, f.const(0, "real"))


def test_infinities_follow_the_extended_reals():
    f = Residues(LARGE[0], 0)
    low, one = f.const(float("-inf"), "real"), f.const(1, "real")
    assert f.pointwise("exp", None, [low])["p"] == 0
    assert f.pointwise("add", None, [low, one]) == low
    assert f.pointwise("max", None, [low, one]) == one
    assert f.pointwise("sub", None, [low, low]) == f.const(float("nan"), "real")
    assert f.pointwise("mul", None, [low, f.const(-0.5, "real")]) == f.const(float("inf"), "real")
    with pytest.raises(Outside):
        f.pointwise("mul", None, [low, f.draw(())])


def test_floats_stand_for_fractions():
    assert rational(1 / 768 * (1 / 8)) == rational(1 / 6144)
    assert rational(0.1) * 10 == 1


def test_algebraic_forms_are_equal():
    x, y, z = t("x", I, K), t("y", I, K), t("z", I, K)
    pairs = [
        (div(div(x, y), z), div(x, mul(y, z))),
        (square(sub(x, y)), add(square(x), sub(square(y), mul(2.0, mul(x, y))))),
        (op("log", mul(exp(x), exp(y))), add(x, y)),
        (mul(op("rsqrt", square(x)), op("abs", x)), div(x, x)),
        (op("logistic", x), div(1.0, add(1.0, exp(op("neg", x))))),
        (op("pow", exp(x), 0.5), exp(mul(x, 0.5))),
    ]
    for a, b in pairs:
        result = field.test(program("a", out(a, I, K)), program("a", out(b, I, K)))
        assert result.passed, str(result)


def test_roots_are_made_sure_of_on_squares():
    x = t("x", I, K)
    s = add(square(x), 1.0)
    result = field.test(program("a", out(square(op("sqrt", s)), I, K)), program("a", out(s, I, K)))
    assert result.outcome != "different", str(result)


def test_sums_of_equal_terms_keep_the_real_size():
    x = t("x", I, K)
    a = total(add(x, 1.0), K)
    whole = program("a", out(a, I))
    assert field.test(whole, program("a", out(add(total(x, K), 33.0), I))).passed
    wrong = field.test(whole, program("a", out(add(total(x, K), 32.0), I)))
    assert wrong.outcome == "different"


def test_what_is_outside_is_said_with_the_operator():
    x = t("x", I, K)
    twice = program("a", out(exp(exp(x)), I, K))
    result = field.test(twice, twice)
    assert result.outcome == "outside"
    assert "exp" in result.reason
    scaled = program("a", out(red("max", mul(2.0, x), K), I))
    result = field.test(scaled, program("a", out(mul(2.0, red("max", x, K)), I)))
    assert result.outcome == "outside"
    assert "maximum" in result.reason
    odd = program("a", out(op("erf", op("neg", x)), I, K))
    result = field.test(odd, program("a", out(op("neg", op("erf", x)), I, K)))
    assert result.outcome == "outside"
    assert "erf" in result.reason


def test_merged_and_sliced_dimensions_shrink_or_stay():
    a, b, c = Axis("a", 30), Axis("b", 40), Axis("c", 50)
    x, y = Tensor("x", (1200, 50), "float32"), Tensor("y", (30, 50), "float32")
    merged = Load(x, (affine([(a, 40), (b, 1)]), at(c)))
    whole = Program("m", (x,), (Store(y, (at(a), at(c)), total(merged, b)),))
    pair = shrink(whole, as_sgraph(whole), np.random.default_rng(0))
    sizes = dict(pair.sizes)
    assert pair.program.inputs[0].shape == (sizes["a"] * sizes["b"], sizes["c"])
    assert max(sizes.values()) < 8
    assert field.test(whole, whole).passed
    z = Tensor("z", (60, 50), "float32")
    window = Load(z, (affine([(a, 1)], 7), at(c)))
    shifted = Program("s", (z,), (Store(y, (at(a), at(c)), window),))
    pair = shrink(shifted, as_sgraph(shifted), np.random.default_rng(0))
    assert dict(pair.sizes)["a"] == 30
    assert pair.program.inputs[0].shape[0] == 60
    assert field.test(shifted, shifted).passed


def test_gathers_and_masks_are_inside():
    rows = Tensor("rows", (12,), "int32")
    table = Tensor("table", (100, 33), "float32")
    value = Load(table, (at(Load(rows, (at(I),))), at(K)))
    masked = op("where", op("lt", Iota(K), Load(rows, (at(I),))), value, 0.0)
    whole = program("gather", out(total(masked, K), I))
    assert field.test(whole, whole).passed


def test_probability_grows_with_the_degree():
    small = field.test(matmul().program, matmul().sgraph)
    large = field.test(attention().program, attention().sgraph)
    assert small.error_probability < 1e-20 < large.error_probability
    split = attention_split()
    assert field.test(split.program, split.sgraph, seed=5).passed
