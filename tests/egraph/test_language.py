"""The tensor language: normal forms, facts, binders, and what must not be equal."""

from __future__ import annotations

from fractions import Fraction

import pytest

from prism_jax.egraph.contraction import ContractionOrder
from prism_jax.egraph.core import EGraph
from prism_jax.egraph.extract import default_rules
from prism_jax.egraph.facts import Facts, join, of_power, strictest
from prism_jax.egraph.language import encode, encode_node, fresh, rename, rename_node
from prism_jax.egraph.normal import TensorLanguage, add_product, add_sum
from prism_jax.egraph.run import saturate
from prism_jax.ir.nodes import Axis, Const, Load, Node, Pointwise, Precision, Reduce, Tensor, at
from prism_jax.ir.program import walk
from tests.egraph.forms import add, div, load, mul, op, program, rms_norm, softmax, sub, total

A, J, K = Axis("i", 3), Axis("j", 4), Axis("k", 5)
X, Y = load("x", A, K), load("y", A, K)
S = load("s", A)


def together(*nodes: Node) -> tuple[EGraph, list[int]]:
    """Several terms in one graph."""
    graph, known = EGraph(TensorLanguage()), dict[Node, int]()
    for node in walk(nodes):
        known[node] = encode_node(graph, node, known)
    graph.rebuild()
    return graph, [graph.find(known[node]) for node in nodes]


def equal(a: Node, b: Node, search: bool = False) -> bool:
    graph, (left, right) = together(a, b)
    if search:
        saturate(graph, default_rules())
    return graph.find(left) == graph.find(right)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (add(X, Y), add(Y, X)),
        (add(add(X, Y), S), add(X, add(Y, S))),
        (sub(X, Y), add(op("neg", Y), X)),
        (add(X, X), mul(2.0, X)),
        (sub(mul(3.0, X), X), mul(X, 2.0)),
        (sub(X, X), Const(0.0)),
        (mul(mul(X, Y), S), mul(X, mul(S, Y))),
        (div(div(X, Y), S), div(X, mul(Y, S))),
        (mul(div(X, S), div(Y, S)), div(mul(X, Y), mul(S, S))),
        (mul(X, X), op("integer_pow", X, parameter=2)),
        (mul(mul(2.0, X), mul(3.0, Y)), mul(6.0, mul(X, Y))),
        (total(K, mul(2.0, X)), mul(total(K, X), 2.0)),
        (total(K, S), mul(5.0, S)),
        (Reduce("max", (K,), S), S),
        (total(A, total(K, X)), Reduce("sum", (A, K), X)),
        (op("sqrt", mul(mul(S, S), mul(S, S))), mul(S, S)),
        (op("max", X, Y), op("max", Y, X)),
        (op("pow", X, 2.0), mul(X, X)),
        (add(Const(1.0), Const(2.0)), Const(3.0)),
    ],
    ids=range(19),
)
def test_normal_form_decides(a: Node, b: Node) -> None:
    assert equal(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (div(X, X), Const(1.0)),  # zero
        (mul(op("sqrt", X), op("sqrt", X)), X),  # negative numbers
        (op("sqrt", mul(X, X)), X),
        (sub(Const(float("inf")), Const(float("inf"))), Const(0.0)),
        (total(K, mul(X, X)), mul(total(K, X), total(K, X))),
        (op("exp", add(X, Y)), mul(op("exp", X), op("exp", Y))),  # proofs only
        (op("log", op("exp", X)), X),
        (Reduce("max", (K,), mul(S, X)), mul(S, Reduce("max", (K,), X))),  # S may be negative
    ],
    ids=range(8),
)
def test_what_may_differ_is_kept_apart(a: Node, b: Node) -> None:
    assert not equal(a, b, search=True)


def test_a_full_divisor_does_not_leave_a_contraction() -> None:
    """The published axiom (A / v) B = (A B) / v does not say that v has no such axis."""
    w, full = load("w", K, J), load("z", A, J)
    inside = total(K, mul(div(X, Y), w))
    outside = div(total(K, mul(X, w)), full)
    assert not equal(inside, outside, search=True)
    assert equal(total(K, mul(div(X, S), w)), div(total(K, mul(X, w)), S), search=True)


def test_the_mean_in_a_norm_is_kept() -> None:
    without = mul(X, op("rsqrt", add(total(K, mul(X, X)), 1e-6)))
    assert not equal(rms_norm(X, K), without, search=True)


def test_scale_cycles_end() -> None:
    graph, (x, y) = together(X, Y)
    half = add_sum(graph, Fraction(0), [(x, Fraction(1, 2))])
    graph.union(half, y)
    twice = add_sum(graph, Fraction(0), [(y, Fraction(2))])
    graph.union(twice, x)
    graph.rebuild()
    saturate(graph, default_rules())
    assert graph.find(add_product(graph, [(twice, Fraction(2))])) >= 0
    assert graph.node_count < 30


# ---- facts


def facts(node: Node) -> Facts:
    graph, (identifier,) = together(node)
    return graph.facts(identifier)


def test_facts_of_a_softmax() -> None:
    e = op("exp", sub(X, Reduce("max", (K,), X)))
    assert (facts(e).low, facts(e).high) == (0.0, 1.0)
    assert facts(e).positive
    assert facts(total(K, e)).positive
    assert facts(softmax(X, K)).finite


def test_facts_of_a_maximum_over_scaled_scores() -> None:
    scores = mul(total(K, mul(X, load("w", K, J))), 0.125)
    shifted = sub(scores, Reduce("max", (J,), scores))
    assert facts(shifted).high == 0.0
    assert facts(sub(scores, Reduce("min", (J,), scores))).low == 0.0


def test_facts_of_a_norm() -> None:
    square = total(K, mul(X, X))
    assert facts(square).nonnegative
    assert not facts(square).positive
    inverse = op("rsqrt", add(square, 1e-6))
    assert facts(inverse).positive
    assert facts(inverse).finite


def test_masks_are_not_finite() -> None:
    mask = op("where", Pointwise("lt", (X, Y)), X, float("-inf"))
    assert not facts(mask).finite
    assert facts(op("exp", mask)).low == 0.0
    assert not facts(op("exp", mask)).positive


def test_free_axes_shrink_when_classes_merge() -> None:
    graph, (x, s) = together(X, S)
    graph.union(x, s)
    graph.rebuild()
    assert graph.facts(x).free == {A}


@pytest.mark.parametrize(
    "e", [Fraction(2), Fraction(-1), Fraction(1, 2), Fraction(-1, 2), Fraction(3)]
)
@pytest.mark.parametrize("bounds", [(-2.0, 3.0), (0.0, 2.0), (1.0, 4.0), (-3.0, -1.0)])
def test_ranges_of_powers_contain_the_values(e: Fraction, bounds: tuple[float, float]) -> None:
    low, high = bounds
    found = of_power(Facts(low=low, high=high, nonzero=not low <= 0 <= high, finite=True), e)
    for step in range(101):
        x = low + (high - low) * step / 100
        if (x < 0 and e.denominator > 1) or (x == 0 and e < 0):
            continue
        value = x ** float(e) if e.denominator > 1 else float(x) ** e.numerator
        assert found.low - 1e-12 <= value <= found.high + 1e-12


def test_join_keeps_the_stronger() -> None:
    a, b = Facts(low=0.0, finite=True), Facts(high=1.0, nonzero=True)
    both = join(a, b)
    assert (both.low, both.high, both.nonzero, both.finite) == (0.0, 1.0, True, True)
    assert join(both, a) is both


@pytest.mark.parametrize(
    ("one", "other", "operand"),
    [
        ("float16", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("float16", "bfloat16", "float32"),
        ("float64", "bfloat16", "float64"),
    ],
)
def test_the_strictest_precision_loses_nothing(one: str, other: str, operand: str) -> None:
    a = Precision(one, "float32", one, "tf32")
    b = Precision(other, "float64", other, "highest")
    both = strictest(a, b)
    assert both is not None
    assert (both.operand, both.accumulate, both.algorithm) == (operand, "float64", "highest")
    assert strictest(b, a) == both
    assert strictest(None, a) == a


# ---- binders


def test_fresh_names_differ_from_every_taken_name() -> None:
    assert fresh(K, {K, Axis("k'", 9)}) == Axis("k''", 5)


def test_renaming_renames_a_binder_that_would_capture() -> None:
    body = total(K, mul(X, load("w", K)))  # free: i
    moved = rename_node(body, {A: K})
    assert moved.axes_free == (K,)
    assert isinstance(moved, Reduce)
    assert moved.axes[0].name == "k'"


def test_renaming_in_the_graph_agrees_with_renaming_terms() -> None:
    body = op("exp", total(K, mul(X, load("w", K))))
    renamed = rename_node(body, {A: K})
    graph, (plain, expected) = together(body, renamed)
    assert graph.find(rename(graph, plain, {A: K})) == expected


def test_renaming_reaches_gathered_indices() -> None:
    where = Load(Tensor("t", (3,), "int32"), (at(A),))
    row = Load(Tensor("table", (7, 5), "float32"), (at(where), at(K)))
    moved = rename_node(row, {A: J})
    assert {a.name for a in moved.axes_free} == {"j", "k"}


def test_nested_sums_over_one_name_are_merged_by_renaming() -> None:
    i, j, d = Axis("i", 50), Axis("j", 50), Axis("d", 5)
    inner = total(d, mul(load("q", i, d), load("k", j, d)))
    outer = total(j, mul(inner, load("v", j, d)))  # d is free here: another axis of the same name
    graph, (root,) = together(outer)
    saturate(graph, [ContractionOrder()])
    best = [node for node in graph.nodes(root, "reduce") if node[0][2][0].name.startswith("d'")]
    assert best, "Q (K^T V) sums over a renamed axis"


def test_encoding_remembers_the_precision_of_the_program() -> None:
    x, w = load("x", A, K), load("w", K, J)
    p = program("p", total(K, mul(x, w), Precision("float16", "float32", "float16")))
    encoded = encode(p)
    assert encoded.precision == Precision("float16", "float32", "float16")
    assert encoded.graph.facts(encoded.roots[0]).precision == encoded.precision
