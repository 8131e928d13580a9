"""Choices of a schedule change the code and not the value: cut loops, exp2, swizzled blocks,
warps.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import jax
import numpy as np
import pytest

from prism_jax.emit import lax_blocks
from prism_jax.emit.triton import emit, emit_kernel
from prism_jax.emit.triton.early import early
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Node, Reduce, Tensor, at
from prism_jax.ir.rewrite import replace as substitute
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph

from .graphs import (
    Case,
    attention,
    attention_split,
    cases,
    gatedmlp,
    load,
    logsumexp,
    mul,
    op,
    rbf,
    record,
    rmsnorm_linear,
    softmax_accumulators,
    store,
)
from .harness import agree, expected, inputs, interpreted


def text(case: Case, schedule: Schedule) -> str:
    return emit(case.sgraph, case.sizes, [schedule] * len(case.sgraph.kernels))[0].source.text


def windowed(case: Case, mask: Node) -> Case:
    """The case with another mask in place of `j <= i`."""
    (kernel,) = case.sgraph.kernels
    (loop,) = kernel.loops
    i, j = kernel.grid[0].axis, loop.axis
    old: dict[Node, Node] = {op("le", Iota(j), Iota(i)): mask}
    accumulators = tuple(replace(a, summand=substitute(a.summand, old)) for a in loop.accumulators)
    made = replace(kernel, loops=(replace(loop, accumulators=accumulators),))
    return Case(replace(case.sgraph, nodes=(made,)), case.sizes)


def integer(value: int) -> Const:
    return Const(value, "int32")


ROW, KEY = Axis("i", 40), Axis("j", 40)
MASKS = {
    "causal": op("le", Iota(KEY), Iota(ROW)),
    "causal the other way round": op("ge", Iota(ROW), Iota(KEY)),
    "strictly causal, shifted": op("lt", Iota(KEY), op("add", Iota(ROW), integer(3))),
    "window": op(
        "and", op("le", Iota(KEY), Iota(ROW)), op("gt", Iota(KEY), op("sub", Iota(ROW), integer(9)))
    ),
    "suffix": op("ge", Iota(KEY), Iota(ROW)),
}


@pytest.mark.parametrize("tiles", [(16, 8), (8, 16), (16, 16)])
@pytest.mark.parametrize("name", sorted(MASKS))
def test_cut_loops(name: str, tiles: tuple[int, int]) -> None:
    case = attention(2, 40, 40, 8, "float32", fill=-1e30).tiles(T_i=tiles[0], T_j=tiles[1])
    case = windowed(case, MASKS[name])
    given = inputs(case)
    found = interpreted(case, given, Schedule(cut=True))
    wanted = expected(case, given)
    agree(case, found, wanted, "float32")
    assert text(case, Schedule(cut=True)) != text(case, Schedule())
    blocks = lax_blocks.emit(case.sgraph, case.sizes, cut=True)
    agree(case, jax.jit(blocks.call)(*given.values()), wanted, "float32")
    assert blocks.source != lax_blocks.emit(case.sgraph, case.sizes).source


@pytest.mark.parametrize("splits", [2, 3])
@pytest.mark.parametrize("fill", [-math.inf, -1e30])
def test_cut_loops_with_infinities_and_shares(fill: float, splits: int) -> None:
    """Whole causal rows, and rows whose keys are shared by blocks of which some have none."""
    case = attention(1, 40, 40, 8, "float32", fill=fill).tiles(T_i=8, T_j=8)
    given = inputs(case)
    agree(case, interpreted(case, given, Schedule(cut=True)), expected(case, given), "float32")
    (kernel,) = case.sgraph.kernels
    (loop,) = kernel.loops
    s = Axis("s", splits)
    lows = Tensor("lows", (splits, 1, 40), "float32")
    (value,) = kernel.stores
    item = store(lows, (s, Axis("b", 1), ROW), loop.accumulators[0].carried())
    made = replace(kernel, grid=(GridAxis(s, 1), *kernel.grid), stores=(item,))
    made = replace(made, loops=(replace(loop, split=s, accumulators=loop.accumulators[:1]),))
    shared = Case(replace(case.sgraph, nodes=(made,), outputs=(lows,)), case.sizes)
    (wanted,) = expected(shared, given)
    (found,) = interpreted(shared, given, Schedule(cut=True))
    np.testing.assert_allclose(
        np.where(found < -1e29, -np.inf, found), np.where(wanted < -1e29, -np.inf, wanted), 1e-4
    )
    assert value.tensor in case.sgraph.outputs


@pytest.mark.parametrize("fill", [-1e30, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("name", ["suffix", "window"])
def test_rows_whose_first_tiles_are_masked(name: str, fill: float) -> None:
    """fill * log2(e) rounds, or overflows: 2^(x c - m c) of such a row must not be infinite."""
    case = attention(2, 40, 40, 8, "float16", fill=fill).tiles(T_i=16, T_j=8)
    case = windowed(case, MASKS[name])
    given = inputs(case)
    source = text(case, Schedule())
    assert "slope = tl.where(m_new_masked, " in source
    for schedule in (Schedule(), Schedule(cut=True)):
        agree(case, interpreted(case, given, schedule), expected(case, given), "float16")
    plain = attention(2, 40, 40, 8, "float16", causal=False)
    assert "slope" not in text(plain, Schedule())


LOWEST = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    "fills", [(-1e30, -2e30), (-1e10, -1e30), (-1e30, LOWEST), (LOWEST, 0), (-1e8, 0), (1e30, 0)]
)
def test_a_row_of_constants_has_the_weights_of_the_largest(fills: tuple[float, float]) -> None:
    """Masked by one mask or by another: the first rows have weight on later keys only, and the sum
    of weights, by which another kernel may divide, is their number.
    """
    i, j, d = ROW, KEY, Axis("d", 8)
    q, k, total = (
        Tensor(n, s, "float16") for n, s in (("q", (40, 8)), ("k", (40, 8)), ("l", (40,)))
    )
    dot = Reduce("sum", (d,), mul(load(q, i, d), load(k, j, d)), record("float16"))
    padded = op("where", op("ge", Iota(j), integer(4)), dot, Const(fills[1])) if fills[1] else dot
    seen = op("lt", Iota(j), Iota(i))
    scores = op("where", seen, padded, Const(fills[0]))
    top, weights = softmax_accumulators(scores, (i,), None, (), record("float16"))
    loop = Loop(j, "T_j", (top, weights))
    kernel = Kernel(
        "weights", (GridAxis(i, "T_i"),), (loop,), (store(total, (i,), weights.carried()),)
    )
    graph = SGraph("weights", (q, k), (kernel,), (total,), "float32")
    case = Case(graph, {"T_i": 16, "T_j": 8})
    given = inputs(case)
    # The difference first where m * log2(e) would be rounded by much: a multiply-add would not
    # round x * log2(e) alike, though the interpreter does.
    way = "slope = tl.where(m_new_masked, " if fills[0] <= -1e9 else "sub_2 = where - m_new["
    assert way in text(case, Schedule())
    for schedule in (Schedule(), Schedule(cut=True)):
        (found,) = interpreted(case, given, schedule)
        (wanted,) = expected(case, given)
        np.testing.assert_allclose(found, wanted, 5e-3)
    assert found[0] == 40


def test_from_what_is_loaded_the_maximum_is_subtracted_first() -> None:
    """Partial maxima may be a mask's -1e30, squares over a small number -1e10: the difference is
    exact.
    """
    pairs = logsumexp(32, 32, 4, "float16")
    assert "tl.exp2(sub" in text(pairs, Schedule())
    case = attention_split(2, 16, 64, 16, 2, "float16")
    combine = emit(case.sgraph, case.sizes, [Schedule()] * 2)[1].source.text
    assert re.search(r"sub = pm - max", combine)
    assert "tl.exp2(sub * 1.44" in combine


@pytest.mark.parametrize(("dtype", "narrow"), [("float16", True), ("float32", False)])
def test_quotients_of_a_row_share_one_division(dtype: str, narrow: bool) -> None:
    case = attention_split(2, 16, 64, 16, 2, dtype)
    combine = emit(case.sgraph, case.sizes, [Schedule()] * 2)[1].source.text
    assert ("div = 1.0 / sum" in combine) is narrow
    assert bool(re.search(r"/ sum\w*\[:, None\]", combine)) is not narrow
    given = inputs(case)
    agree(case, interpreted(case, given, Schedule()), expected(case, given), dtype)


@pytest.mark.parametrize(("dtype", "narrow"), [("float16", True), ("float32", False)])
def test_quotients_of_rows_by_columns_share_divisions(dtype: str, narrow: bool) -> None:
    x, t, y = Tensor("x", (40,), dtype), Tensor("t", (40,), dtype), Tensor("y", (40, 40), dtype)
    quotient = op("div", Load(x, (at(ROW),)), op("exp", Load(t, (at(KEY),))))
    item = store(y, (ROW, KEY), quotient)
    kernel = Kernel("divide", (GridAxis(ROW, 8), GridAxis(KEY, 8)), (), (item,))
    case = Case(SGraph("divide", (x, t), (kernel,), (y,), "float32"), {})
    assert ("div = 1.0 / exp  # [j]" in text(case, Schedule())) is narrow
    given = inputs(case)
    agree(case, interpreted(case, given, Schedule()), expected(case, given), dtype)


EMPTY_ROWS = {
    "strictly causal": op("lt", Iota(KEY), Iota(ROW)),
    "later keys only": op("gt", Iota(KEY), op("add", Iota(ROW), integer(1))),
    "empty window": op(
        "and",
        op("le", Iota(KEY), op("sub", Iota(ROW), integer(20))),
        op("ge", Iota(KEY), Iota(ROW)),
    ),
}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", sorted(EMPTY_ROWS))
def test_rows_that_are_masked_throughout_have_equal_weights(name: str, dtype: str) -> None:
    """-1e30 - (-1e30) is 0: such a row is the mean of all values, of the steps left out too."""
    case = attention(2, 40, 40, 8, dtype, fill=-1e30).tiles(T_i=16, T_j=8)
    case = windowed(case, EMPTY_ROWS[name])
    given = inputs(case)
    wanted = expected(case, given)
    source = text(case, Schedule(cut=True))
    assert "j_idle" in source
    assert "num_stages=1" in source
    agree(case, interpreted(case, given, Schedule(cut=True)), wanted, dtype)
    blocks = lax_blocks.emit(case.sgraph, case.sizes, cut=True)
    agree(case, jax.jit(blocks.call)(*given.values()), wanted, dtype)


def test_scores_below_the_fill_leave_the_weight_to_masked_keys() -> None:
    """Scores of -3e32: exp(-1e30 - m) of a masked key is 1 in every row but the last."""
    case = attention(2, 40, 40, 8, "float32", fill=-1e30).tiles(T_i=16, T_j=8)
    given = inputs(case)
    given["q"], given["k"] = np.full_like(given["q"], 1e16), np.full_like(given["k"], -1e16)
    wanted = expected(case, given)
    np.testing.assert_allclose(wanted[0][:, 0], given["v"][:, 1:].mean(1), 1e-5, 1e-6)
    agree(case, interpreted(case, given, Schedule(cut=True)), wanted, "float32")
    blocks = lax_blocks.emit(case.sgraph, case.sizes, cut=True)
    agree(case, jax.jit(blocks.call)(*given.values()), wanted, "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_where_it_is_proved_nothing_is_checked(dtype: str) -> None:
    case = attention(2, 40, 40, 8, dtype, fill=-1e30)
    assert ("j_idle" in text(case, Schedule(cut=True))) is (dtype == "bfloat16")


def test_causal_tiles_below_the_diagonal_have_no_mask() -> None:
    case = attention(2, 64, 64, 16, "float16", fill=-1e30)
    lines = text(case, Schedule(cut=True)).splitlines()
    loops = [n for n, line in enumerate(lines) if "for j_start" in line]
    assert len(loops) == 2
    assert "range(0, j_full, 16)" in lines[loops[0]]
    assert not any("tl.where(le" in line for line in lines[loops[0] : loops[1]])
    assert any("tl.where(le" in line for line in lines[loops[1] :])


def test_what_is_not_neutral_is_not_cut() -> None:
    """exp(0) where the mask is false adds up: those steps matter."""
    x, y = Tensor("x", (40, 40), "float32"), Tensor("y", (40,), "float32")
    masked = op("where", MASKS["causal"], Load(x, (at(ROW), at(KEY))), Const(-1e30))
    total = Accumulator("total", "sum", op("exp", mul(masked, -1e-30)), (ROW,))
    loops = (Loop(KEY, 8, (total,)),)
    kernel = Kernel("sums", (GridAxis(ROW, 8),), loops, (store(y, (ROW,), total.carried()),))
    with_cut = emit_kernel(kernel, "float32", Schedule(cut=True)).source.text
    assert "range(0, 40, 8" in with_cut


@pytest.mark.parametrize("case", cases("float32", big=False), ids=lambda c: c.name)
def test_exp2(case: Case) -> None:
    given = inputs(case)
    found = interpreted(case, given, Schedule(exp2=True))
    agree(case, found, expected(case, given), "float32")


@pytest.mark.parametrize("swizzle", [2, 3, 16])
def test_swizzled_blocks_are_all_blocks(swizzle: int) -> None:
    case = gatedmlp(70, 16, 90, "float32").tiles(T_i=16, T_j=16, T_k=16)
    given = inputs(case)
    found = interpreted(case, given, Schedule(swizzle=swizzle))
    agree(case, found, expected(case, given), "float32")
    three = attention_split(2, 20, 40, 8, 2, "float32")
    given = inputs(three)
    found = interpreted(three, given, Schedule(swizzle=swizzle))
    agree(three, found, expected(three, given), "float32")


def test_warps_and_stages_reach_the_source() -> None:
    case = gatedmlp(16, 64, 64, "float16")
    (kernel,) = emit(case.sgraph, case.sizes, [Schedule(8, 5)])
    assert (kernel.source.num_warps, kernel.source.num_stages) == (8, 5)
    assert np.prod(kernel.grid) == 2


@pytest.mark.parametrize("depth", [64, 40])
def test_long_products_without_a_matrix_unit_are_cut_up(depth: int) -> None:
    case = rbf(70, 64, depth, 4, "float32").tiles(T_i=64, T_j=64)
    given = {name: value / np.float32(8) for name, value in inputs(case).items()}
    assert "range(0, " + str(depth) + ", 16)" in text(case, Schedule())
    agree(case, interpreted(case, given, Schedule()), expected(case, given), "float32")


def test_what_only_a_reduced_axis_makes_large_is_never_built() -> None:
    for depth in (8, 40):
        case = logsumexp(70, 64, depth, "float32").tiles(T_i=16, T_j=32)
        given = {name: value / np.float32(4) for name, value in inputs(case).items()}
        assert "[i, d, j]" not in text(case, Schedule())
        assert "[i, j, d]" not in text(case, Schedule())
        agree(case, interpreted(case, given, Schedule()), expected(case, given), "float32")


def test_operands_of_few_rows_are_loaded_for_nothing_else() -> None:
    """One load for both uses puts all rows of a tile in the same banks of shared memory."""
    case = rmsnorm_linear(8, 64, 64, "float16").tiles(T_i=8, T_j=32, T_k=32)
    source = text(case, Schedule())
    (product,) = [line for line in source.splitlines() if "tl.dot(" in line]
    operand = product.split("tl.dot(")[1].split(",")[0]
    used = [line for line in source.splitlines() if re.search(rf"\b{operand}\b", line)]
    assert len(used) == 2  # where it is loaded, and the product
    assert 'cache_modifier=".ca"' in source
    assert "tl.range(" in source
    many = rmsnorm_linear(128, 64, 64, "float16").tiles(T_i=64, T_j=32, T_k=32)
    assert ".ca" not in text(many, Schedule())


def test_rows_that_have_met_nothing_have_no_weight() -> None:
    """where(m != -inf, exp(s - m), 0) as one choice for each row: -inf - inf is no number's exp."""
    case = attention(2, 40, 40, 8, "float16", fill=-math.inf).tiles(T_i=16, T_j=8)
    (kernel,) = case.sgraph.kernels
    (loop,) = kernel.loops
    top, *rest = loop.accumulators
    new = top.carried("new")
    weight = op("exp", op("sub", top.summand, new))
    guard = op("where", op("ne", new, -math.inf), weight, 0.0)
    rest = [replace(a, summand=substitute(a.summand, {weight: guard})) for a in rest]
    made = replace(kernel, loops=(replace(loop, accumulators=(top, *rest)),))
    case = Case(replace(case.sgraph, nodes=(made,)), case.sizes)
    window = windowed(case, MASKS["window"])
    given = inputs(window)
    source = text(window, Schedule())
    assert "_safe = tl.where(ne, " in source
    assert "tl.where(ne[:, None]" not in source
    agree(window, interpreted(window, given, Schedule()), expected(window, given), "float16")


@pytest.mark.parametrize("past", [False, True])
def test_loads_move_before_what_waits(past: bool) -> None:
    loop = ["for j in range(4):", "    total += tl.sum(x, 0)"] if past else []
    lines = ["x = tl.load(x_ptr)", *loop, "top = tl.max(x, 0)", "at = top * 2",
             "y = tl.load(y_ptr + at)", "row = 8 * i", "z = tl.load(z_ptr + row)",
             "w = tl.load(w_ptr)", "tl.store(out_ptr, y + z + w)"]  # fmt: skip
    moved = early(lines, {"x": 8, "z": 8, "w": 64})
    first = moved.index(loop[0] if past else "top = tl.max(x, 0)")
    assert sorted(moved) == sorted(lines)
    assert moved.index("row = 8 * i") < moved.index("z = tl.load(z_ptr + row)") < first
    assert moved.index("y = tl.load(y_ptr + at)") > moved.index("at = top * 2") > first
    assert (moved.index("w = tl.load(w_ptr)") < first) is not past  # too large to wait for a loop


def test_what_a_loop_changes_is_not_loaded_before_it() -> None:
    lines = ["p = 0", "for j in range(4):", "    p += 1", "y = tl.load(y_ptr + p)"]
    assert early(lines, {}) == lines


def test_hints_say_who_reads_again() -> None:
    case = gatedmlp(16, 64, 64, "float16").tiles(T_i=16, T_j=16, T_k=16)
    source = text(case, Schedule(hints=True))
    loads = [line for line in source.splitlines() if "tl.load(" in line]
    assert all(('"evict_last"' in x) is (" x = " in x) for x in loads)
    assert sum('"evict_first"' in x for x in loads) == 2
    assert "evict" not in text(case, Schedule())


@pytest.mark.parametrize(("number", "exact"), [(0.25, True), (-8.0, True), (3.0, False)])
def test_exact_inverses_multiply(number: float, exact: bool) -> None:
    x, y = Tensor("x", (40,), "float32"), Tensor("y", (40,), "float32")
    item = store(y, (ROW,), op("div", Load(x, (at(ROW),)), number))
    kernel = Kernel("divide", (GridAxis(ROW, 8),), (), (item,))
    source = emit_kernel(kernel, "float32", Schedule()).source.text
    assert (f"* {1 / number!r}" in source.replace("(", "").replace(")", "")) is exact
