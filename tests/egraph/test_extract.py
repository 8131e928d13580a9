"""Alternatives: what must be found, what must never be chosen, and that all forms are equal."""

from __future__ import annotations

import time

import jax
import numpy as np
import pytest

from prism_jax.bench.suites import rows
from prism_jax.egraph import Limits, alternatives, explain, search
from prism_jax.egraph.contraction import extent
from prism_jax.egraph.extract import default_rules
from prism_jax.egraph.language import encode
from prism_jax.egraph.run import saturate
from prism_jax.extract import lift
from prism_jax.ir.check import check_program
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import Axis, Const, Pointwise, Reduce
from prism_jax.ir.program import Program
from tests.egraph import forms
from tests.egraph.forms import Maker, dot, load, mul, op, program, softmax


def largest_sum(p: Program) -> int:
    """The most points that one sum of the program ranges over."""
    sums = [n for n in p.nodes if isinstance(n, Reduce) and n.monoid == "sum"]
    return max(extent(frozenset(n.body.axes_free)) for n in sums)


def contractions(p: Program) -> list[Reduce]:
    found = [n for n in p.nodes if isinstance(n, Reduce) and n.monoid == "sum"]
    return [n for n in found if isinstance(n.body, Pointwise) and n.body.op == "mul"]


@pytest.mark.parametrize("make", forms.SUITES, ids=lambda m: m.__name__)
def test_every_alternative_has_the_same_value(make: Maker) -> None:
    p = make(big=False)
    inputs = forms.inputs(p)
    want = evaluate(p, inputs)
    for other in alternatives(p, limit=24):
        check_program(other.program)
        assert other.program.inputs == p.inputs
        assert [s.tensor for s in other.program.outputs] == [s.tensor for s in p.outputs]
        for a, b in zip(evaluate(other.program, inputs), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", forms.SUITES, ids=lambda m: m.__name__)
def test_the_program_comes_first_and_forms_are_distinct_and_ranked(make: Maker) -> None:
    p = make()
    found = alternatives(p)
    assert found[0].program is p
    assert found[0].axioms == ()
    assert len(found) <= 8
    assert len({a.program.digest for a in found}) == len(found)
    seconds = [a.cost.seconds for a in found[1:]]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("make", forms.SUITES, ids=lambda m: m.__name__)
def test_saturation_is_fast_and_complete(make: Maker) -> None:
    p = make()
    best = min(_seconds(p) for _ in range(3))
    assert best < (1.0 if make is forms.block else 0.3)


def _seconds(p: Program) -> float:
    start = time.process_time()
    encoded = encode(p)
    record = saturate(encoded.graph, default_rules())
    assert record.stop.value == "saturated"
    return time.process_time() - start


WORKLOADS = [(suite, row) for suite in ("mirage", "prism") for row in rows(suite)]


@pytest.mark.parametrize(
    ("suite", "row"), WORKLOADS, ids=[f"{n}-{s} {r.key}" for n, (s, r) in enumerate(WORKLOADS)]
)
def test_saturation_of_the_suites_takes_less_than_a_third_of_a_second(suite, row) -> None:
    """The functions that are benchmarked, at their sizes, as they are traced and lifted."""
    arguments = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in row.operands]
    p = lift(jax.make_jaxpr(row.function)(*arguments), row.name)
    assert len(p.nodes) >= 9
    assert min(_seconds(p) for _ in range(3)) < 0.3


def test_a_low_rank_chain_is_reassociated() -> None:
    best = alternatives(forms.low_rank())[1]
    assert best.cost.flops * 20 < alternatives(forms.low_rank())[0].cost.flops
    assert best.axioms == ("contraction-order",)
    assert largest_sum(best.program) == 16 * 4096 * 16


def test_a_low_rank_chain_is_reassociated_the_other_way() -> None:
    i, k, j, r = forms.axes(i=4096, k=16, j=16, r=4096)  # many rows: A B first
    p = program("chain", dot(r, dot(k, load("x", i, k), load("a", k, r)), load("b", r, j)))
    best = alternatives(p)[1]
    assert largest_sum(best.program) == 4096 * 16 * 16


def test_linear_attention_drops_the_square() -> None:
    best = alternatives(forms.linear_attention())[1]
    assert largest_sum(best.program) == 4096 * 64 * 64


def test_attention_with_a_softmax_keeps_its_scores() -> None:
    for other in alternatives(forms.gqa()):
        assert largest_sum(other.program) == 2 * 256 * 4096 * 64


def test_distances_are_expanded_and_the_plain_form_stays() -> None:
    found = alternatives(forms.pairwise())
    expanded = [a for a in found if "square-of-sum" in a.axioms]
    assert expanded[0] is found[1]
    assert expanded[0].risks == ("cancellation in the expanded square",)
    assert found[0].risks == ()
    products = [c for c in contractions(expanded[0].program) if len(c.body.axes_free) == 3]
    assert len(products) == 1, "only the cross term ranges over all axes"


def test_row_scales_leave_and_column_scales_go_to_the_cheaper_side() -> None:
    programs = [a.program for a in alternatives(forms.scaled())]
    bodies = [[s.value for s in p.outputs] for p in programs]
    assert any(isinstance(row, Pointwise) and row.op == "div" for row, _ in bodies)
    i, k, j = forms.axes(i=4096, k=64, j=8)
    scaled_columns = program("c", dot(k, mul(load("x", i, k), load("c", k)), load("w", k, j)))
    best = alternatives(scaled_columns)[1].program.outputs[0].value
    assert isinstance(best, Reduce)
    assert isinstance(best.body, Pointwise)
    small = [a for a in best.body.args if isinstance(a, Pointwise)]
    assert [a.name for a in small[0].axes_free] == ["j", "k"], "c is multiplied into w"


def test_the_scale_of_a_norm_leaves_the_product() -> None:
    hoisted = [a for a in alternatives(forms.rms_norm_linear()) if "hoist" in a.axioms]
    value = hoisted[0].program.outputs[0].value
    assert isinstance(value, Pointwise)
    assert value.op == "mul"
    plain = [c for c in contractions(hoisted[0].program) if len(c.body.axes_free) == 3]
    assert all(type(arg).__name__ == "Load" for c in plain for arg in c.body.children)


def test_both_scales_leave_in_a_gated_norm() -> None:
    def plain(p: Program) -> bool:
        products = [c for c in contractions(p) if len(c.body.axes_free) == 3]
        return all(type(arg).__name__ == "Load" for c in products for arg in c.body.children)

    assert any(plain(a.program) for a in alternatives(forms.rms_norm_mlp()))


def test_a_layer_norm_leaves_its_product() -> None:
    """Mean and shift are hoisted: the large product takes x and g * w, nothing computed per row."""

    def hoisted(p: Program) -> bool:
        large = [c for c in contractions(p) if len(c.body.axes_free) == 3]
        names = {a.name for c in large for arg in c.body.children for a in arg.axes_free}
        computed = [arg for c in large for arg in c.body.children if isinstance(arg, Pointwise)]
        only_weights = all({a.name for a in arg.axes_free} == {"j", "k"} for arg in computed)
        return names == {"i", "j", "k"} and only_weights

    found = alternatives(forms.layer_norm_linear())
    assert any(hoisted(a.program) for a in found)
    assert any(hoisted(a.program) and "square-of-sum" not in a.axioms for a in found)


def test_constants_of_a_minimum_are_dropped_under_argmin() -> None:
    found = alternatives(forms.kmeans())
    shifted = [a for a in found if "argmin-shift" in a.axioms]
    assert shifted
    assert shifted[0].cost.seconds < found[0].cost.seconds


def test_sums_with_a_common_factor_become_one() -> None:
    i, k, j = forms.axes(i=512, k=512, j=512)
    x = load("x", i, k)
    p = program("two", forms.add(dot(k, x, load("u", k, j)), dot(k, x, load("v", k, j))))
    best = alternatives(p)[1]
    assert best.axioms == ("factor",)
    assert len(contractions(best.program)) == 1


def exponents(p: Program) -> set[str]:
    return {n.digest for n in p.nodes if isinstance(n, Pointwise) and n.op in ("exp", "exp2")}


@pytest.mark.parametrize("make", [forms.gqa, forms.block], ids=lambda m: m.__name__)
def test_exponentials_are_the_users_or_bounded(make: Maker) -> None:
    p = make()
    for other in alternatives(p, limit=16):
        for node in other.program.nodes:
            if isinstance(node, Pointwise) and node.op == "exp":
                argument = node.args[0]
                assert isinstance(argument, Pointwise)
                assert argument.op == "sub"
                assert isinstance(argument.args[-1], Reduce)
                assert argument.args[-1].monoid == "max"


def test_an_unguarded_exponential_of_the_user_stays() -> None:
    i, j = forms.axes(i=8, j=8)
    p = program("e", op("exp", load("x", i, j)))
    assert [exponents(a.program) for a in alternatives(p)] == [exponents(p)]


def test_new_products_inherit_the_precision_of_their_sources() -> None:
    for other in alternatives(forms.low_rank()):
        assert all(c.precision == forms.HALF for c in contractions(other.program))
    norm = alternatives(forms.rms_norm_linear())
    for other in norm:
        large = [c for c in contractions(other.program) if len(c.body.axes_free) == 3]
        assert all(c.precision == forms.HALF for c in large)
        small = [c for c in contractions(other.program) if len(c.body.axes_free) == 2]
        assert all(c.precision is None for c in small), "a row sum keeps its own (none)"


def test_unchanged_parts_keep_the_users_nodes() -> None:
    p = forms.rms_norm_linear()
    norm = [n for n in p.nodes if isinstance(n, Pointwise) and n.op == "rsqrt"]
    for other in alternatives(p):
        assert norm[0] in other.program.nodes


def test_shared_terms_are_paid_once() -> None:
    i, k, j = forms.axes(i=64, k=64, j=64)
    h = dot(k, load("x", i, k), load("w", k, j))
    once, twice = program("a", h), program("b", mul(h, op("logistic", h)))
    single, double = alternatives(once)[0].cost, alternatives(twice)[0].cost
    assert single.flops <= double.flops < 1.1 * single.flops


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_the_limit_counts_the_program_itself(limit: int) -> None:
    assert len(alternatives(forms.layer_norm_linear(), limit=limit)) == limit
    with pytest.raises(ValueError, match="at least 1"):
        alternatives(forms.lora(), limit=0)


def test_a_budget_that_is_too_small_still_gives_the_program() -> None:
    found = search(forms.block(), limits=Limits(seconds=1e-6))
    assert found.saturation.stop.value == "time limit"
    assert found[0].program is not None


def test_constants_and_inputs_as_outputs() -> None:
    i = Axis("i", 3)
    p = program("c", load("x", i), op("add", 1.0, 2.0))
    (only,) = alternatives(p)
    assert only.program is p


def test_a_value_that_cancels_loses_its_axes() -> None:
    i, j = forms.axes(i=3, j=4)
    x = load("x", i)
    p = program("z", forms.add(load("y", j), forms.sub(x, x)))
    inputs = forms.inputs(p)
    for other in alternatives(p):
        np.testing.assert_allclose(evaluate(other.program, inputs)[0], evaluate(p, inputs)[0])


def test_a_factor_that_loses_a_summed_axis_counts_as_a_multiple() -> None:
    """Found by a random program: `where(c, s, s)` is `s`, which has no axis i, in a sum over i."""
    i, j, k = forms.axes(i=3, j=2, k=2)
    m = load("m", i, j)
    s = forms.total(i, m)
    same = op("where", Pointwise("lt", (load("t"), m)), s, s)
    products = [forms.total(i, mul(same, load(name, j, k))) for name in ("a", "b")]
    p = program("lost", forms.add(*products))
    inputs = forms.inputs(p)
    found = alternatives(p)
    assert len(found) > 1
    for other in found:
        sums = [n for n in other.program.nodes if isinstance(n, Reduce)]
        assert other is found[0] or all(set(n.axes) <= set(n.body.axes_free) for n in sums)
        np.testing.assert_allclose(evaluate(other.program, inputs)[0], evaluate(p, inputs)[0])


def test_a_sum_of_what_cancels_mentions_no_lost_axis() -> None:
    """Found by a random program: `(s - s)^2` is 0, which has no axis j, in a sum over j."""
    i, j = forms.axes(i=2, j=2)
    m = load("m", i, j)
    square = forms.total(i, mul(m, m))
    nothing = forms.total(j, op("integer_pow", forms.sub(square, square), parameter=2))
    which = Reduce("argmax", (i,), nothing, None, "int32")
    first = Pointwise("eq", (which, Const(0, "int32")))
    p = program("nothing", forms.total(i, op("where", first, load("t"), load("v", i))))
    inputs = forms.inputs(p)
    for other in alternatives(p):
        check_program(other.program)
        np.testing.assert_allclose(evaluate(other.program, inputs)[0], evaluate(p, inputs)[0])


def test_explanations_of_forms_replay() -> None:
    p = forms.rms_norm_linear()
    i, k, j = forms.axes(i=16, k=4096, j=6144)
    x = load("x", i, k)
    norm = forms.rms_norm(x, k)
    assert isinstance(norm, Pointwise)
    hoisted = mul(norm.args[1], dot(k, x, load("w", k, j)))
    encoded = encode(program("both", p.outputs[0].value, hoisted))
    saturate(encoded.graph, default_rules())
    found = explain(encoded.graph, *encoded.roots)
    assert found.rules == ("hoist",)
    assert found.replay()
    assert "a... = [" in str(found)


def test_softmax_goes_outside_its_product() -> None:
    i, j, e = forms.axes(i=8, j=64, e=16)
    p = program("s", dot(j, softmax(load("s", i, j), j), load("v", j, e)))
    best = alternatives(p)[1].program.outputs[0].value
    assert isinstance(best, Pointwise)
    assert best.op == "div"
