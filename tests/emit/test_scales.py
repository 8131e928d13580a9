"""Scales of rows and columns of a product: each form has the same value, and the cheaper ones cost
less.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from prism_jax.emit.binary import SPILLED
from prism_jax.emit.triton import emit
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.nodes import Axis, Const, Iota, Load, Node, Reduce, Tensor
from prism_jax.ir.sgraph import GridAxis, Kernel, Loop, SGraph

from .graphs import Case, load, mul, op, record, softmax_accumulators, store
from .harness import agree, expected, inputs, interpreted
from .test_compile import compiled, sources


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
@pytest.mark.parametrize("products", ["dot", "mulsum"])
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


def test_weights_of_features_go_where_no_loop_is() -> None:
    source = text(normed(1, 64, 64, 16, "float16", weights=True), Schedule())
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
    (found,) = interpreted(case, given, Schedule(cut=causal))
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.isnan(found).any()
    assert np.nanmax(np.abs(found.astype(np.float64) - wanted)) < 1e-2


def test_scales_are_computed_before_the_product() -> None:
    """A product holds most of a block's registers, and what scales it need not be beside it: in the
    other order this kernel spills 40 bytes a thread on sm_90.
    """
    case = normed(2, 256, 4096, 64, "float16").tiles(T_i=128, T_j=128)
    [source] = sources(case, Schedule(4, 3))
    assert source.text.index("rsqrt = tl.rsqrt") < source.text.index("tl.dot(")
    [binary] = compiled([source], 90)
    assert binary.stack <= SPILLED
