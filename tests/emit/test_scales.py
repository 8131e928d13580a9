"""Scales of rows and columns of a product: each form has the same value, and the cheaper ones cost
less.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from prism_jax.device import row
from prism_jax.emit.binary import fits
from prism_jax.emit.triton import emit
from prism_jax.instantiate.plan import Plan, Schedule
from prism_jax.instantiate.plan_text import parse_plan, print_plan
from prism_jax.instantiate.rank import Ranking
from prism_jax.instantiate.work import has_scales
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Node, Reduce, Tensor
from prism_jax.ir.sgraph import GridAxis, Kernel, Loop, SGraph

from .graphs import Case, attention, load, mul, op, record, softmax_accumulators, store
from .harness import agree, expected, inputs, interpreted
from .test_compile import DEVICES, compiled, sources

SCALED = Schedule(products="scaled")


def normed(
    b: int,
    n: int,
    m: int,
    d: int,
    dtype: str,
    *,
    weights: bool = False,
    outside: bool = False,
    causal: bool = False,
    eps: float = 1e-6,
) -> Case:
    """Attention with root mean square norms of queries and keys; keys may have weights. `outside`:
    the product is scaled, not what is multiplied.
    """
    bb, i, j, dd = Axis("b", b), Axis("i", n), Axis("j", m), Axis("d", d)
    q, k = Tensor("q", (b, n, d), dtype), Tensor("k", (b, d, m), dtype)
    w, v = Tensor("w", (d,), dtype), Tensor("v", (b, m, d), dtype)
    o = Tensor("o", (b, n, d), dtype)
    p = record(dtype)

    def norm(x: Load) -> tuple[Node, ...]:
        mean = op("div", Reduce("sum", (dd,), mul(x, x), record("float32", "highest")), float(d))
        return x, op("rsqrt", op("add", mean, eps))

    query, key = norm(load(q, bb, i, dd)), norm(load(k, bb, dd, j))
    key = (*key, load(w, dd)) if weights else key
    scores: Node = Reduce("sum", (dd,), mul(mul(*query), mul(*key)), p)
    if outside:
        scores = Reduce("sum", (dd,), mul(query[0], key[0]), p)
        scores = mul(op("mul", scores, key[1]), query[1])
    if causal:
        scores = op("where", op("le", Iota(j), Iota(i)), scores, Const(-1e30))
    top, total, out = softmax_accumulators(scores, (bb, i), load(v, bb, j, dd), (bb, i, dd), p)
    kernel = Kernel(
        "normed",
        (GridAxis(i, "T_i"), GridAxis(bb, 1)),
        (Loop(j, "T_j", (top, total, out)),),
        (store(o, (bb, i, dd), op("div", out.carried(), total.carried())),),
    )
    graph = SGraph("normed", (q, k, w, v) if weights else (q, k, v), (kernel,), (o,), "float32")
    return Case(graph, {"T_i": 16, "T_j": 16})


def text(case: Case, schedule: Schedule) -> str:
    return emit(case.sgraph, case.sizes, [schedule])[0].source.text


def loop(source: str) -> list[str]:
    """The lines of the last loop."""
    lines = source.splitlines()
    first = max(n for n, line in enumerate(lines) if line.startswith("    for "))
    return [line.split("  # ")[0] for line in lines[first + 1 :] if line.startswith("        ")]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("sizes", [(2, 32, 48, 16), (1, 21, 37, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("products", ["dot", "scaled", "mulsum"])
def test_all_forms_have_one_value(
    products: str, dtype: str, sizes: tuple[int, int, int, int], weights: bool
) -> None:
    for causal in (False, True):
        case = normed(*sizes, dtype, weights=weights, causal=causal)
        given = inputs(case)
        wanted = expected(case, given)
        for exp2 in (None, True):
            schedule = Schedule(products=products, cut=causal, exp2=exp2)
            agree(case, interpreted(case, given, schedule), wanted, dtype)


@pytest.mark.parametrize("outside", [False, True])
def test_maxima_and_exponentials_take_scales_of_rows(outside: bool) -> None:
    case = normed(2, 19, 37, 16, "float16", outside=outside)
    given = inputs(case)
    agree(case, interpreted(case, given, Schedule()), expected(case, given), "float16")
    source = text(case, Schedule())
    name = "dot"
    (row_max,) = [line for line in loop(source) if "tl.reduce(" in line]
    (keys,) = [line for line in loop(source) if f"= {name} * " in line]
    assert "[None, :]" in keys  # the keys' scale; the queries' is one number for each maximum
    scaled = keys.split("=")[0].strip()
    assert f"tl.reduce({scaled}_in," in row_max
    (weights,) = [line for line in loop(source) if f"tl.exp2({scaled} * " in line]
    assert re.search(rf"tl\.exp2\({scaled} \* \w+_log2\[:, None\] - ", weights)


def test_scales_of_keys_go_into_keys() -> None:
    case = normed(1, 64, 64, 16, "float16")
    lines = loop(text(case, SCALED))
    (product,) = [line for line in lines if "dot = tl.dot(" in line]
    operands = product.split("tl.dot(")[1].split(")")[0].split(", ")
    assert operands[0] == "q"  # its scale is taken, and so is not rounded
    assert any(f"{operands[1]} = mul" in line and ".to(tl.float16)" in line for line in lines)
    assert any("tl.reduce(dot," in line for line in lines)
    assert not any("= dot * " in line for line in lines)


def test_weights_of_features_go_where_no_loop_is() -> None:
    for schedule in (Schedule(), SCALED):
        source = text(normed(1, 64, 64, 16, "float16", weights=True), schedule)
        assert "w = tl.load(" in source
        assert not any(re.search(r"\bw(_f32)?\b", line) for line in loop(source))
        before = source.split("    for ")[-2]
        assert re.search(r"rsqrt(_\d)?\[:, None\]", before)  # what is rounded anyway is scaled


def test_masked_steps_alone_multiply() -> None:
    """Where the mask holds throughout, maxima and exponentials take the scale; else they cannot."""
    source = text(normed(1, 64, 64, 16, "float16", causal=True), Schedule(cut=True))
    first, second = source.split("    for ")[-2:]
    assert "_log2[:, None] - " in first
    assert "tl.where(le" not in first
    assert "tl.where(le" in second


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("eps", [1e-6, 0.0])
def test_rows_that_are_no_numbers(causal: bool, eps: float) -> None:
    """A query of zeros without epsilon, one with an infinity, one with a NaN."""
    case = normed(1, 19, 21, 8, "float16", causal=causal, eps=eps)
    given = inputs(case)
    given["q"][0, 3], given["q"][0, 5, 2], given["q"][0, 7, 1] = 0, np.inf, np.nan
    with np.errstate(all="ignore"):
        (wanted,) = expected(case, given)
    for schedule in (Schedule(cut=causal), replace(SCALED, cut=causal)):
        (found,) = interpreted(case, given, schedule)
        assert np.array_equal(np.isnan(found), np.isnan(wanted))
        assert np.isnan(found).any()
        assert np.nanmax(np.abs(found.astype(np.float64) - wanted)) < 1e-2


#: (rows, keys, warps): most registers of a thread for sm_80 and sm_90, unscaled and scaled.
STEPS = {(128, 64, 8): ((216, 176), (136, 136)), (64, 64, 4): ((224, 176), (160, 144))}


@pytest.mark.parametrize("capability", [80, 90])
def test_scaled_keys_make_steps_shorter(capability: int) -> None:
    case = normed(16, 256, 4096, 64, "float16")
    for (rows, keys, warps), registers in STEPS.items():
        shaped = case.tiles(T_i=rows, T_j=keys)
        schedules = [Schedule(warps, 3), replace(SCALED, num_warps=warps)]
        made = compiled([x for s in schedules for x in sources(shaped, s)], capability)
        for binary, most in zip(made, registers[capability == 90], strict=True):
            assert binary.stack == 0
            assert binary.registers <= most
            assert fits(binary, row(DEVICES[capability])) is None
        times = [len(re.findall(r"\bmul(?:\.rn)?\.f32\b", b.ptx)) for b in made]
        lines = [len(re.findall(r";$", b.ptx, re.MULTILINE)) for b in made]
        if rows > keys:  # else a step has as many keys to scale as a row has scores
            assert times[1] < times[0]
            assert lines[1] < lines[0] or capability == 80


def test_the_choice_is_known() -> None:
    case = normed(16, 256, 4096, 64, "float16")
    (kernel,) = case.sgraph.kernels
    ranking = Ranking(kernel, row("H100"), {})
    _, sizes, schedule = ranking.first(4)[0]
    near = [s for _, same, s in ranking.around(sizes, schedule) if same == sizes]
    assert replace(schedule, products="scaled") in near
    assert not has_scales(attention(16, 256, 4096, 64, "float16").sgraph.kernels[0])
    back = [s for _, _, s in ranking.around(sizes, replace(schedule, products="scaled"))]
    assert schedule in back
    plan = Plan(case.sgraph, "triton", "H100", tuple(sorted(case.sizes.items())), (SCALED,))
    assert parse_plan(print_plan(plan)) == plan
    assert "scaled" in plan.summary()


def test_columns_are_summed_without_going_round_the_warps() -> None:
    """Keys are normalised in each step. Laid out as the scores are, each thread would hold a
    quarter of all keys, and add them up with seven others by 96 shuffles.
    """
    case = normed(2, 256, 4096, 64, "float16").tiles(T_i=128, T_j=128)
    [source] = sources(case, Schedule(8, 3))
    assert "tl.sum(tl.trans(" in source.text
    assert source.text.index("rsqrt = tl.rsqrt") < source.text.index("tl.dot(")
    [binary] = compiled([source], 90)
    assert binary.stack == 0
    assert binary.ptx.count("shfl.sync") < 60
