"""The cascade rule on drawn instances: it fires on every legal one, with the right value, and
refuses every illegal one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prism_jax.explore.cascade import cascade
from prism_jax.explore.structure import KernelBuilder
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import Axis, Const, Load, Node, Pointwise, Reduce, Store, Tensor, at
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import SGraph

ROW, K, E = Axis("i", 3), Axis("k", 11), Axis("e", 2)
X, Y = Tensor("x", (3, 11), "float64"), Tensor("y", (3, 11), "float64")
V = Tensor("v", (11, 2), "float64")


def op(name: str, *args: Node, parameter: Any = None) -> Node:
    return Pointwise(name, args, parameter)


x = Load(X, (at(ROW), at(K)))
y = Load(Y, (at(ROW), at(K)))
v = Load(V, (at(K), at(E)))
top = Reduce("max", (K,), x)
total = Reduce("sum", (K,), y)
weights = Reduce("sum", (K,), op("exp", op("sub", x, top)))

scales = st.sampled_from([0.5, 1.0, 2.0, 3.0])


@st.composite
def exponentials(draw: st.DrawFn) -> Node:
    """exp(c (x - max x) + something of k), in several spellings."""
    c = Const(draw(scales))
    spelling = draw(st.integers(0, 4))
    if spelling == 0:
        return op("exp", op("mul", c, op("sub", x, top)))
    if spelling == 1:
        return op("exp2", op("div", op("sub", x, top), c))
    if spelling == 2:
        return op("exp", op("add", op("neg", top), op("add", x, y)))
    if spelling == 3:
        return op("div", op("exp", x), op("exp", top))
    return op("integer_pow", op("exp", op("sub", x, top)), parameter=draw(st.sampled_from([2, 3])))


@st.composite
def legal_sums(draw: st.DrawFn) -> Node:
    """A stabilised exponential times a weight of k, over something that depends on earlier sums
    alone.
    """
    summand = draw(exponentials())
    if draw(st.booleans()):
        summand = op("mul", summand, v)
    if draw(st.booleans()):
        summand = op("div", summand, weights)
    if draw(st.booleans()):
        summand = op("where", op("lt", y, Const(0.5)), summand, Const(0.0))
    if draw(st.booleans()):
        summand = op("neg", summand)
    return summand


@st.composite
def polynomials(draw: st.DrawFn) -> Node:
    """Sums over a signed sum: legal as expansions of finite rank."""
    centred = op("sub", y, op("mul", total, Const(draw(scales))))
    power = draw(st.integers(0, 2))
    summand = [centred, op("mul", centred, centred), op("integer_pow", centred, parameter=2)][power]
    return op("mul", summand, x) if draw(st.booleans()) else summand


def value_in_one_loop(monoid: str, summand: Node, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """The reduction by the program's own meaning, and as one streaming loop with the given tile."""
    reduction = Reduce(monoid, (K,), summand)
    axes = reduction.axes_free
    out = Tensor("out", tuple(a.size for a in axes), "float64")
    store = Store(out, tuple(at(a) for a in axes), reduction)
    program = Program("drawn", (X, Y, V), (store,), "float64")
    roles = dict.fromkeys(axes, "grid") | {K: "loop"}
    kernel = KernelBuilder("drawn", (store,), roles).build()
    assert len(kernel.loops) == 1, "the rule did not fire"
    random = np.random.default_rng(tile)
    inputs = {t.name: random.standard_normal([int(s) for s in t.shape]) * 3 for t in program.inputs}
    sizes = dict.fromkeys(kernel.symbols, 2) | {"T_k": tile}
    sgraph = SGraph("drawn", program.inputs, (kernel,), (out,), "float64")
    return evaluate(program, inputs)[0], evaluate_sgraph(sgraph, sizes, inputs)[0]


@given(legal_sums(), st.sampled_from([1, 2, 4, 16]))
def test_legal_sums_stream_in_one_loop(summand: Node, tile: int) -> None:
    expected, streamed = value_in_one_loop("sum", summand, tile)
    np.testing.assert_allclose(streamed, expected, rtol=1e-9, atol=1e-12)


@given(polynomials(), st.sampled_from([1, 4, 16]))
def test_powers_of_signed_sums_are_hoisted(summand: Node, tile: int) -> None:
    terms = cascade("sum", summand, K, (total,))
    assert terms is not None
    assert all(term.stabiliser is None for term in terms)
    expected, streamed = value_in_one_loop("sum", summand, tile)
    np.testing.assert_allclose(streamed, expected, rtol=1e-7, atol=1e-7)


@given(st.sampled_from(["max", "min"]), scales, st.sampled_from([1, 4, 16]))
def test_max_plus(monoid: str, scale: float, tile: int) -> None:
    summand = op("add", op("sub", op("mul", y, Const(scale)), top), x)
    expected, streamed = value_in_one_loop(monoid, summand, tile)
    np.testing.assert_allclose(streamed, expected, rtol=1e-12)


def _illegal() -> dict[str, tuple[str, Node, tuple[Reduce, ...]]]:
    low = Reduce("min", (K,), op("log", y))
    signed = op("exp", op("sub", x, total))
    masked = Reduce("max", (K,), op("where", op("lt", y, Const(0.0)), x, Const(float("-inf"))))
    unmasked = op("exp", op("sub", y, masked))
    return {
        "not separable": ("sum", op("exp", op("mul", x, top)), (top,)),
        "no exponential law": ("sum", op("tanh", op("sub", x, top)), (top,)),
        "a signed sum in an exponent": ("sum", signed, (total,)),
        "a product of sums": ("prod", op("sub", x, top), (top,)),
        "a maximum that may start at -inf alone": ("sum", unmasked, (masked,)),
        "a minimum that may be +inf": ("sum", op("exp", op("sub", low, x)), (low,)),
        "scaled inside a maximum": ("max", op("mul", x, top), (top,)),
    }  # fmt: skip


def test_illegal_instances_are_refused() -> None:
    for why, (monoid, summand, earlier) in _illegal().items():
        assert cascade(monoid, summand, K, earlier) is None, why


def test_masked_maximum_streams_where_the_exponent_grows_with_it() -> None:
    masked = op("where", op("lt", y, Const(0.0)), x, Const(float("-inf")))
    summand = op("exp", op("sub", masked, Reduce("max", (K,), masked)))
    for tile in (1, 2, 16):
        expected, streamed = value_in_one_loop("sum", summand, tile)
        np.testing.assert_allclose(streamed, expected, rtol=1e-9)
