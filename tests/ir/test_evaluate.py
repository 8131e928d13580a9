"""The oracle: programs against NumPy, samples against wholes, sGraphs against programs, counts."""

# ruff: noqa: E501 - tables of cases read best with a case to a line

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from prism_jax.ir import interpret
from prism_jax.ir.counter import Counter
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.field import Field
from prism_jax.ir.nodes import (
    Axis,
    Const,
    Iota,
    Load,
    Node,
    Reduce,
    Store,
    Tensor,
    Within,
    affine,
    at,
)
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph
from prism_jax.ir.values import FLOAT64, Named, contract
from tests.ir import samples
from tests.ir.samples import op

A, K = Axis("a", 4), Axis("k", 8)
X = Tensor("x", (4, 8), "float16")
XAK = Load(X, (at(A), at(K)))
NUMBERS = np.random.default_rng(0)
XS = NUMBERS.normal(size=(4, 8)).astype(np.float16)


def shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(s for s in tensor.shape if isinstance(s, int))


def draw(tensor: Tensor) -> np.ndarray:
    return NUMBERS.normal(size=shape(tensor))


def program(value: Node, *inputs: Tensor, dtype: str = "float32") -> Program:
    axes = value.axes_free
    y = Tensor("y", tuple(a.size for a in axes), dtype)
    return Program("p", (X, *inputs), (Store(y, tuple(map(at, axes)), value),))


def run(value: Node, dtype: str = "float32", **more: Any) -> np.ndarray:
    inputs = [Tensor(n, a.shape, a.dtype.name) for n, a in more.items()]
    return evaluate(program(value, *inputs, dtype=dtype), {"x": XS, **more})[0]


# ---- programs ----


def test_attention_is_attention():
    a_program, _ = samples.attention()
    inputs = {t.name: draw(t) for t in a_program.inputs}
    q, key, v = (inputs[n] for n in ("q", "key", "v"))
    scores = np.where(np.tril(np.ones((10, 13), bool)), q @ key.T, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    expected = weights @ v / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(evaluate(a_program, inputs)[0], expected, rtol=1e-13)


def test_reals_are_float64_and_integers_keep_their_dtype():
    assert run(XAK).dtype == np.float64
    top = np.asarray([127, -128, 5, 0], np.int8)
    doubled = op("add", Load(Tensor("n", (4,), "int8"), (at(A),)), Const(127, "int8"))
    result = run(doubled, "int8", n=top)
    assert result.dtype == np.int8
    assert result.tolist() == [-2, -1, -124, 127]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ((at(A), at(K)), XS),
        ((affine([(A, -1)], 3), at(K)), XS[::-1]),
        ((at(2), affine([(A, 2)], 1)), XS[2, 1::2]),
        ((at(A), at(A)), np.diagonal(XS)),
        ((at(A), affine([(Axis("c", 2), 3), (Axis("d", 3), 1)], 1)), XS[:, 1:7].reshape(4, 2, 3)),
    ],
)
def test_loads(index, expected):
    np.testing.assert_array_equal(run(Load(X, index)), np.asarray(expected, np.float64))


def test_windows_overlap():
    w = Axis("w", 3)
    windows = np.lib.stride_tricks.sliding_window_view(XS, 3, axis=1)
    value = Load(X, (at(A), affine([(Axis("o", 6), 1), (w, 1)])))
    np.testing.assert_array_equal(run(value), windows)


def test_guards_read_nothing_outside_and_give_the_fill():
    padded = Axis("p", 12)
    index = affine([(padded, 1)], -3)
    value = Load(X, (at(A), index), (Within(index, 0, 8),), Const(-1.0))
    expected = np.pad(XS.astype(float), ((0, 0), (3, 1)), constant_values=-1)
    np.testing.assert_array_equal(run(value), expected)
    with pytest.raises(IndexError, match=r"x: float16\[4,8\] leaves dimension 1"):
        run(Load(X, (at(A), index)))
    late = Load(X, (at(A), index), (Within(index, 0, 9),), Const(-1.0))
    with pytest.raises(IndexError, match="leaves dimension 1"):
        run(late)


def test_a_guard_may_range_over_axes_that_no_index_has():
    value = Load(X, (at(A), at(0)), (Within(at(K), 2, 4),), Const(0.0))
    expected = np.where((np.arange(8) >= 2) & (np.arange(8) < 4), XS[:, :1].astype(float), 0)
    np.testing.assert_array_equal(run(value), expected)


def test_gathers():
    rows = np.asarray([3, 0, 3, 1], np.int32)
    n = Load(Tensor("n", (4,), "int32"), (at(A),))
    value = Load(X, (at(n), affine([(K, -1)], 7)))
    np.testing.assert_array_equal(run(value, n=rows), XS[rows][:, ::-1])
    best = Reduce("argmax", (K,), XAK, index_sort="int32")
    np.testing.assert_array_equal(run(Load(X, (at(A), at(best)))), XS.max(1))


@pytest.mark.parametrize(
    ("monoid", "expected"),
    [
        ("sum", XS.astype(float).sum(1)),
        ("prod", XS.astype(float).prod(1)),
        ("max", XS.max(1)),
        ("min", XS.min(1)),
        ("argmax", XS.argmax(1)),
        ("argmin", XS.argmin(1)),
    ],
)
@pytest.mark.parametrize("budget", [interpret.BUDGET, 3, 1])
def test_reductions_in_pieces(monoid, expected, budget, monkeypatch):
    monkeypatch.setattr(interpret.Interpreter.__init__, "__defaults__", (budget, None))
    arg = monoid.startswith("arg")
    value = Reduce(monoid, (K,), op("neg", op("neg", XAK)), index_sort="int32" if arg else None)
    result = run(value, "int32" if arg else "float32")
    np.testing.assert_allclose(result, expected, rtol=1e-15)
    assert result.dtype == (np.int32 if arg else np.float64)


@pytest.mark.parametrize("budget", [interpret.BUDGET, 2])
def test_the_first_best_place_wins_and_nan_is_best(budget, monkeypatch):
    monkeypatch.setattr(interpret.Interpreter.__init__, "__defaults__", (budget, None))
    rows = np.asarray([[1, 3, 3, 0], [0, np.nan, 5, np.nan], [-np.inf] * 4])
    load = Load(Tensor("w", (3, 4), "float64"), (at(Axis("r", 3)), at(A)))
    for monoid, places in (("argmax", [1, 1, 0]), ("argmin", [3, 1, 0])):
        value = Reduce(monoid, (A,), load, index_sort="int32")
        assert run(value, "int32", w=rows).tolist() == places


def test_booleans_reduce():
    positive = op("gt", XAK, Const(0.0))
    assert run(Reduce("any", (K,), positive), "bool").tolist() == (XS > 0).any(1).tolist()
    assert run(Reduce("all", (A,), positive), "bool").tolist() == (XS > 0).all(0).tolist()


def test_a_reduction_over_an_axis_that_its_body_has_not():
    np.testing.assert_allclose(run(Reduce("sum", (K,), Const(0.5))), 4.0)
    factors = op("mul", Load(X, (at(A), at(0))), Load(X, (at(0), at(Axis("j", 8)))))
    np.testing.assert_allclose(
        run(Reduce("sum", (K,), factors)), 8 * np.outer(XS[:, 0].astype(float), XS[0].astype(float))
    )


def test_an_inner_binder_shadows_an_outer_axis():
    """softmax over k, and the sum over k of the whole minus its own mean over k."""
    mean = op("mul", Reduce("sum", (K,), XAK), Const(1 / 8))
    value = Reduce("sum", (K,), op("abs", op("sub", XAK, mean)))
    x = XS.astype(float)
    np.testing.assert_allclose(run(value), np.abs(x - x.mean(1, keepdims=True)).sum(1))


@pytest.mark.parametrize("budget", [interpret.BUDGET, 40])
def test_contractions_of_many_factors(budget, monkeypatch):
    monkeypatch.setattr(interpret.Interpreter.__init__, "__defaults__", (budget, None))
    b, c, d = Axis("b", 3), Axis("c", 5), Axis("d", 6)
    arrays: dict[str, Any] = {"u": NUMBERS.normal(size=(8, 3, 5)), "v": NUMBERS.normal(size=(3, 8, 6)), "w": NUMBERS.normal(size=(5, 6))}  # fmt: skip
    u = Load(Tensor("u", (8, 3, 5), "float64"), (at(K), at(b), at(c)))
    v = Load(Tensor("v", (3, 8, 6), "float64"), (at(b), at(K), at(d)))
    w = op("exp", Load(Tensor("w", (5, 6), "float64"), (at(c), at(d))))
    value = Reduce("sum", (K, c), op("mul", op("mul", u, w), op("mul", v, XAK)))
    expected = np.einsum(
        "kbc,bkd,cd,ak->abd", arrays["u"], arrays["v"], np.exp(arrays["w"]), XS.astype(float)
    )
    np.testing.assert_allclose(run(value, **arrays), expected, rtol=1e-12, atol=1e-12)


def test_integer_contractions_wrap():
    n = NUMBERS.integers(-100, 100, (4, 8)).astype(np.int8)
    load = Load(Tensor("n", (4, 8), "int8"), (at(A), at(K)))
    other = Load(Tensor("n", (4, 8), "int8"), (at(Axis("b", 4)), at(K)))
    result = run(Reduce("sum", (K,), op("mul", load, other)), "int8", n=n)
    np.testing.assert_array_equal(result, n @ n.T)


def test_a_contraction_does_not_build_its_product():
    """1000 x 1000 x 1000 multiply-adds, whose product would take 8 GB, through a matrix product."""
    a, b = (NUMBERS.normal(size=(1000, 1000)) for _ in range(2))
    i, j, k = (Axis(n, 1000) for n in "ijk")
    load = [
        Load(Tensor(n, (1000, 1000), "float64"), (at(p), at(q)))
        for n, p, q in (("a", i, k), ("b", k, j))
    ]
    y = Tensor("y", (1000, 1000), "float64")
    value = Reduce("sum", (k,), op("mul", *load))
    a_program = Program("p", (load[0].tensor, load[1].tensor), (Store(y, (at(i), at(j)), value),))
    np.testing.assert_allclose(evaluate(a_program, {"a": a, "b": b})[0], a @ b)


# ---- samples ----


@pytest.mark.parametrize("make", [samples.attention, samples.matmul, samples.gram])
def test_sampled_elements_are_those_of_the_whole(make):
    a_program, _ = make()
    inputs = {t.name: draw(t).astype(t.dtype) for t in a_program.inputs}
    whole = evaluate(a_program, inputs)
    points = [NUMBERS.integers(0, o.shape, (17, o.ndim)) for o in whole]
    for some, o, p in zip(evaluate(a_program, inputs, points), whole, points, strict=True):
        np.testing.assert_allclose(some, o[tuple(p.T)], rtol=1e-13)
    first, *rest = evaluate(a_program, inputs, [points[0], *(None for _ in whole[1:])])
    assert first.shape == (17,)
    assert [r.shape for r in rest] == [o.shape for o in whole[1:]]


@pytest.mark.parametrize("make", [samples.attention, samples.matmul, samples.gram])
def test_outputs_and_samples_in_pieces(make, monkeypatch):
    a_program, _ = make()
    inputs = {t.name: draw(t).astype(t.dtype) for t in a_program.inputs}
    whole = evaluate(a_program, inputs)
    monkeypatch.setattr("prism_jax.ir.evaluate.LIVE", 7)
    monkeypatch.setattr("prism_jax.ir.evaluate.BUDGET", 30)
    points = [np.argwhere(np.ones(o.shape, bool)) for o in whole]
    for o, cut, some in zip(
        whole, evaluate(a_program, inputs), evaluate(a_program, inputs, points), strict=True
    ):
        np.testing.assert_allclose(cut, o, rtol=1e-13)
        np.testing.assert_allclose(some, o.ravel(), rtol=1e-13)


def test_points_of_stores_that_split_reverse_and_skip_axes():
    c, d = Axis("c", 2), Axis("d", 4)
    value = Load(X, (at(A), affine([(c, 4), (d, 1)])))
    y = Tensor("y", (8, 1, 4), "float32")
    store = Store(y, (affine([(c, 4), (d, -1)], 3), at(0), affine([(A, -1)], 3)), value)
    a_program = Program("p", (X,), (store,))
    whole = evaluate(a_program, {"x": XS})[0]
    expected = XS.reshape(4, 2, 4)[::-1, :, ::-1].transpose(1, 2, 0).reshape(8, 1, 4)
    np.testing.assert_array_equal(whole, expected)
    points = np.argwhere(np.ones((8, 1, 4)))
    np.testing.assert_array_equal(evaluate(a_program, {"x": XS}, [points])[0], expected.ravel())


def test_a_sample_of_a_huge_program_costs_the_sample():
    """Attention over 65536 x 65536 scores (34 GB): three elements."""
    a_program, _ = samples.attention(1 << 16, 1 << 16, 8)
    inputs = {t.name: draw(t).astype(np.float32) for t in a_program.inputs}
    points = np.asarray([[0, 0], [5, 3], [65535, 7]])
    result = evaluate(a_program, inputs, [points])[0]
    v = inputs["v"].astype(float)
    for value, (row, column) in zip(result, points, strict=True):
        scores = inputs["key"][: row + 1].astype(float) @ inputs["q"][row].astype(float)
        weights = np.exp(scores - scores.max())
        assert math.isclose(value, weights @ v[: row + 1, column] / weights.sum(), rel_tol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "points", "error", "message"),
    [
        ({}, None, ValueError, "input x is missing"),
        ({"x": XS.T}, None, ValueError, r"has shape \(8, 4\), the program says \(4, 8\)"),
        ({"x": XS}, [], ValueError, "0 sets of points for 1 outputs"),
        ({"x": XS}, [np.zeros((3, 1), int)], ValueError, r"an integer array \(n, 2\)"),
        ({"x": XS}, [np.zeros((3, 2))], ValueError, r"an integer array \(n, 2\)"),
        ({"x": XS}, [np.asarray([[4, 0]])], IndexError, "a point leaves y"),
    ],
)
def test_bad_inputs_are_said(inputs, points, error, message):
    with pytest.raises(error, match=message):
        evaluate(program(XAK), inputs, points)


def test_no_points_is_an_empty_answer():
    assert evaluate(program(XAK), {"x": XS}, [np.zeros((0, 2), int)])[0].shape == (0,)


# ---- sGraphs ----

SIZES = [
    {"T_i": 1, "T_j": 1, "T_k": 1, "T_c": 1, "S": 1},
    {"T_i": 4, "T_j": 3, "T_k": 5, "T_c": 4, "S": 2},
    {"T_i": 3, "T_j": 7, "T_k": 2, "T_c": 6, "S": 9},
    {"T_i": 16, "T_j": 16, "T_k": 16, "T_c": 16, "S": 3},
]


@pytest.mark.parametrize("make", [samples.attention, samples.matmul, samples.gram])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("blocks", [True, False])
def test_sgraphs_compute_their_programs(make, sizes, blocks):
    a_program, sgraph = make()
    inputs = {t.name: draw(t).astype(t.dtype) for t in a_program.inputs}
    expected = evaluate(a_program, inputs)
    found = evaluate_sgraph(sgraph, sizes, inputs, blocks)
    for e, f in zip(expected, found, strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12)


def test_sgraphs_and_programs_agree_in_finite_fields():
    """The same interpreter over pairs of residues: no tolerance at all."""
    a_program, sgraph = samples.attention()
    field = Field(seed=3)
    inputs = {t.name: field.random(shape(t), NUMBERS) for t in a_program.inputs}
    (expected,) = evaluate(a_program, inputs, domain=field)
    for sizes in SIZES:
        (found,) = evaluate_sgraph(sgraph, sizes, inputs, domain=field)
        assert field.same(found, expected).all()
    assert field.defined(expected).all()
    wrong = a_program.outputs[0].value
    doubled = Program("p", a_program.inputs, (Store(*_two(a_program), op("add", wrong, wrong)),))
    assert not field.same(evaluate(doubled, inputs, domain=field)[0], expected).any()


def _two(a_program: Program):
    return a_program.outputs[0].tensor, a_program.outputs[0].index


def test_rows_masked_in_their_first_tiles_do_not_go_bad():
    """The running maximum is still -inf after the first tiles; the accumulators then start afresh."""
    a_program, sgraph = samples.attention(6, 6, 2)
    flipped = _replace_iota(sgraph)
    inputs = {t.name: draw(t) for t in a_program.inputs}
    found = evaluate_sgraph(flipped, {"T_i": 2, "T_k": 1}, inputs)[0]
    whole = evaluate_sgraph(flipped, {"T_i": 2, "T_k": 6}, inputs)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, whole, rtol=1e-13)


def _replace_iota(sgraph: SGraph) -> SGraph:
    """Causality the other way round: element i sees k >= i."""
    from prism_jax.ir.text import parse_sgraph, print_sgraph

    text = print_sgraph(sgraph)
    assert "ge %0 %1" in text
    return parse_sgraph(text.replace("ge %0 %1", "le %0 %1"))


def test_a_loop_shadows_the_grid_axis_of_its_name():
    """Every block of k sums the whole of k, and writes its own tile of the difference."""
    total = Accumulator("t", "sum", XAK, (A,))
    y = Tensor("y", (4, 8), "float32")
    value = op("sub", XAK, total.carried())
    grid = (GridAxis(A, 3), GridAxis(K, 3))
    kernel = Kernel("k", grid, (Loop(K, 2, (total,)),), (Store(y, (at(A), at(K)), value),))
    (found,) = evaluate_sgraph(SGraph("s", (X,), (kernel,), (y,)), {}, {"x": XS})
    x = XS.astype(float)
    np.testing.assert_allclose(found, x - x.sum(1, keepdims=True), rtol=1e-12)


def test_index_reductions_in_tiles():
    best = Accumulator("best", "argmax", XAK, (A,), index_sort="int32")
    y = Tensor("y", (4,), "int32")
    kernel = Kernel(
        "k", (GridAxis(A, 2),), (Loop(K, "T", (best,)),), (Store(y, (at(A),), best.carried()),)
    )
    sgraph = SGraph("s", (X,), (kernel,), (y,))
    for tile in (1, 3, 8):
        for rows in (XS, np.full((4, 8), -np.inf), np.zeros((4, 8))):
            (found,) = evaluate_sgraph(sgraph, {"T": tile}, {"x": rows})
            assert found.tolist() == rows.argmax(1).tolist()
            assert found.dtype == np.int32


def _row_sum(stores) -> SGraph:
    grid = (GridAxis(A, 3),)
    return SGraph("s", (X,), (Kernel("k", grid, (Loop(K, 3, (ROWS,)),), stores),), (OUT,))


ROWS = Accumulator("r", "sum", XAK, (A,))
OUT = Tensor("out", (4,), "float32")


@pytest.mark.parametrize(
    ("sgraph", "message"),
    [
        (_row_sum((Store(OUT, (affine([(A, 1)], 1),), ROWS.carried()),)), "a store leaves out"),
        (_row_sum((Store(OUT, (affine([(A, 0)]),), ROWS.carried()),)), r"axes \['a'\] of the value"),
        (_row_sum((Store(OUT, (at(A),), ROWS.carried()),) * 2), "0 elements of out: .* not at all and 4 more"),
        (_row_sum((Store(OUT, (at(A),), ROWS.carried("new")),)), "r.new is read where it has no value"),
        (_row_sum((Store(OUT, (at(A),), Load(OUT, (at(A),))),)), "out is read before it is written"),
        (_row_sum((Store(X, (at(A), at(K)), XAK),)), "x: .* is written twice"),
    ],
)  # fmt: skip
def test_what_a_kernel_must_not_do(sgraph, message):
    with pytest.raises(AssertionError, match=message):
        evaluate_sgraph(sgraph, {}, {"x": XS})


def test_an_element_that_is_not_written_is_found():
    half = Axis("a", 2)
    value = Load(X, (at(half), at(0)))
    sgraph = SGraph("s", (X,), (Kernel("k", (), (), (Store(OUT, (at(half),), value),)),), (OUT,))
    with pytest.raises(AssertionError, match=r"2 elements of out: .* not at all"):
        evaluate_sgraph(sgraph, {}, {"x": XS})


# ---- counts ----


def test_counts_of_flash_attention_have_closed_forms():
    n, m, d, rows, step = 12, 10, 4, 3, 2
    _, sgraph = samples.attention(n, m, d)
    counter = Counter()
    inputs = {t.name: draw(t) for t in sgraph.inputs}
    evaluate_sgraph(sgraph, {"T_i": rows, "T_k": step}, inputs, counter=counter)
    blocks, steps = n // rows, m // step
    # q is read once a block (hoisted out of the loop), keys and values once a block and step.
    assert counter.read == {"q": 4 * n * d, "key": 4 * blocks * m * d, "v": 4 * blocks * m * d}
    assert counter.written == {"o": 4 * n * d}
    assert counter.operations["contraction"] == 2 * n * m * d * 2
    # exp of every score, and of the change of the maximum per row and step, shared by l and a.
    assert counter.operations["special"] == n * m + n * steps
    assert counter.operations["reduction"] == 2 * n * m
    assert counter.operations["slow"] == n * d
    assert counter.flops == sum(counter.operations.values())


def test_counts_of_a_program():
    counter = Counter()
    evaluate(program(Reduce("sum", (K,), op("mul", XAK, Load(X, (at(Axis("b", 4)), at(K)))))), {"x": XS}, counter=counter)  # fmt: skip
    assert counter.read == {"x": 2 * 2 * 32}
    assert counter.operations == {"contraction": 2 * 4 * 4 * 8}


def test_contract_orders_batches_and_sums():
    b, i, j = Axis("b", 2), Axis("i", 3), Axis("j", 4)
    u, v = NUMBERS.normal(size=(2, 3)), NUMBERS.normal(size=(2, 3, 4))
    found = contract(FLOAT64, "real", [Named((b, i), u), Named((b, i, j), v)], (i,))
    assert found.labels == (b, j)
    np.testing.assert_allclose(found.array, np.einsum("bi,bij->bj", u, v))
    alone = contract(FLOAT64, "real", [Named((b, i), u), Named((j,), v[0, 0])], (i,))
    np.testing.assert_allclose(alone.array, np.einsum("bi,j->bj", u, v[0, 0]))


def test_iota_of_a_sampled_axis():
    value = op("mul", op("cast", Iota(A), p="float32"), XAK)
    points = np.asarray([[3, 1], [2, 7]])
    found = evaluate(program(value), {"x": XS}, [points])[0]
    np.testing.assert_allclose(found, [3 * float(XS[3, 1]), 2 * float(XS[2, 7])])
