"""Loops of gradients of masked attention: over queries, and with maxima found before."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from prism_jax.emit import lax_blocks
from prism_jax.emit.triton import emit
from prism_jax.instantiate.plan import Schedule
from prism_jax.instantiate.work import cut_loops, share_left
from prism_jax.ir.nodes import Axis, Const, Iota, Node, Reduce, Tensor
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph

from .graphs import Case, load, mul, op, record, store
from .harness import agree, expected, inputs, interpreted
from .test_compile import compiled

KINDS = ("values", "keys", "queries", "sums")
"""What a kernel computes: the gradient of values or keys (loops over queries), or of queries, or
the weights' sum (loops over keys).
"""
ZEROS = ("keys", "queries")
"""Those that multiply by where(mask, ..., 0)."""


def gradient(kind: str, n: int, m: int, d: int, dtype: str, splits: int = 1) -> Case:
    """One kernel of causal attention's gradient, with each query's maximum and sum given."""
    i, j, dd, e = Axis("i", n), Axis("j", m), Axis("d", d), Axis("e", d)
    q, k, v = Tensor("q", (n, d), dtype), Tensor("k", (m, d), dtype), Tensor("v", (m, d), dtype)
    g, top = Tensor("g", (n, d), dtype), Tensor("top", (n,), "float32")
    total = Tensor("total", (n,), "float32")
    p = record(dtype)
    mask = op("ge", Iota(i), Iota(j))
    scores = Reduce("sum", (dd,), mul(load(q, i, dd), load(k, j, dd)), p)
    weight = op("exp", op("sub", op("where", mask, scores, Const(-1e30)), load(top, i)))
    share = op("div", weight, load(total, i))
    change = Reduce("sum", (dd,), mul(load(g, i, dd), load(v, j, dd)), p)
    chosen = op("where", mask, mul(share, change), Const(0.0))
    summand, over, kept = {
        "values": (mul(share, load(g, i, e)), i, (j, e)),
        "keys": (mul(chosen, load(q, i, e)), i, (j, e)),
        "queries": (mul(chosen, load(k, j, e)), j, (i, e)),
        "sums": (weight, j, (i,)),
    }[kind]
    name = f"{over.name}_sum"
    accumulator = Accumulator(name, "sum", summand, kept, precision=p)
    s = Axis("s", splits)
    shape = tuple(int(a.size) for a in kept)
    axes = (s, *kept) if splits > 1 else kept
    grid = (GridAxis(kept[0], "T_row"), *((GridAxis(s, 1),) if splits > 1 else ()))
    out = Tensor("out", (splits, *shape) if splits > 1 else shape, "float32")
    loop = Loop(over, "T_step", (accumulator,), split=s if splits > 1 else None)
    kernel = Kernel("gradient", grid, (loop,), (store(out, axes, accumulator.carried()),))
    graph = SGraph("gradient", tuple(kernel.reads), (kernel,), (out,), "float32")
    return Case(graph, {"T_row": 16, "T_step": 16})


def given(case: Case) -> dict[str, np.ndarray]:
    """Inputs with the maxima and sums that causal attention has."""
    found = inputs(case)
    scores = found["q"].astype(np.float64) @ found["k"].astype(np.float64).T
    n, m = scores.shape
    scores[np.arange(n)[:, None] < np.arange(m)[None, :]] = -np.inf
    if "top" in found:
        found["top"] = scores.max(1).astype(np.float32)
    if "total" in found:
        found["total"] = np.exp(scores - scores.max(1, keepdims=True)).sum(1).astype(np.float32)
    return found


def text(case: Case, schedule: Schedule) -> str:
    return emit(case.sgraph, case.sizes, [schedule])[0].source.text


@pytest.mark.parametrize("tiles", [(16, 8), (8, 16), (16, 16)])
@pytest.mark.parametrize("sizes", [(40, 40, 8), (21, 37, 5), (48, 32, 16), (37, 21, 5), (1, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_cut_loops_have_the_same_value(
    kind: str, sizes: tuple[int, int, int], tiles: tuple[int, int]
) -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        case = gradient(kind, *sizes, dtype).tiles(T_row=tiles[0], T_step=tiles[1])
        arrays = given(case)
        wanted = expected(case, arrays)
        agree_within(case, interpreted(case, arrays, Schedule(cut=True)), wanted, dtype)
        blocks = lax_blocks.emit(case.sgraph, case.sizes, cut=True)
        agree_within(case, jax.jit(blocks.call)(*arrays.values()), wanted, dtype)


def test_blocked_lax_cuts_them_too() -> None:
    for kind in KINDS:
        case = gradient(kind, 40, 40, 8, "float32")
        cut, whole = (lax_blocks.emit(case.sgraph, case.sizes, cut=c).source for c in (True, False))
        assert cut != whole
        assert ("jnp.all(top" in cut) is (kind not in ZEROS)


def agree_within(case: Case, found: object, wanted: object, dtype: str) -> None:
    """Operands of products are rounded to the dtype, results are float32."""
    agree(case, found, wanted, "float32" if dtype == "float32" else dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("splits", [2, 3])
def test_shares_of_a_loop_are_cut(kind: str, splits: int) -> None:
    case = gradient(kind, 40, 40, 8, "float16", splits).tiles(T_row=16, T_step=8)
    arrays = given(case)
    found = interpreted(case, arrays, Schedule(cut=True))
    agree(case, found, expected(case, arrays), "float16")
    assert text(case, Schedule(cut=True)) != text(case, Schedule())


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_steps_are_left(kind: str) -> None:
    case = gradient(kind, 1024, 1024, 16, "float16").tiles(T_row=64, T_step=64)
    (kernel,) = case.sgraph.kernels
    assert len(cut_loops(kernel)) == 1
    rows, steps = np.array([64]), np.array([64])
    assert share_left(kernel, {"T_row": rows, "T_step": steps})[0] == pytest.approx(17 / 32)


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_mask_holds_there_is_none(kind: str) -> None:
    """Over keys the last steps are at the mask's edge, over queries the first ones."""
    case = gradient(kind, 64, 64, 16, "float16")
    *_, first, second = text(case, Schedule(cut=True)).split("    for ")
    inside = [part.split("\n    tl.store")[0] for part in (first, second)]
    masked = ["tl.where(ge" in part for part in inside]
    assert masked == ([False, True] if kind in ("queries", "sums") else [True, False])


@pytest.mark.parametrize("kind", ["values", "sums"])
def test_a_maximum_that_is_too_low_stops_the_cut(kind: str) -> None:
    """exp(-1e30 - (-1e30)) is 1: then masked positions add up."""
    case = gradient(kind, 40, 40, 8, "float32")
    arrays = given(case)
    arrays["q"][3:], arrays["k"][3:] = 0, 0  # all other weights are at most 1
    arrays["top"][1] = -1e30
    arrays["q"][1], arrays["k"][:2] = -1e16, 1e16  # and row 1's are those of masked positions
    arrays["q"][0], arrays["q"][2] = 0, 0
    arrays["top"][[0, 2]] = 0
    (found,) = interpreted(case, arrays, Schedule(cut=True))
    (wanted,) = interpreted(case, arrays, Schedule())  # in float32 the constants are equal
    np.testing.assert_allclose(found, wanted, 1e-6)
    if kind == "sums":
        assert found[1] == 38


def test_a_maximum_that_is_no_number_stops_the_cut() -> None:
    case = gradient("values", 40, 40, 8, "float32")
    arrays = given(case)
    arrays["top"][20] = np.nan
    (found,) = interpreted(case, arrays, Schedule(cut=True))
    assert np.isnan(found).all()
    blocks = lax_blocks.emit(case.sgraph, case.sizes, cut=True)
    assert np.isnan(np.asarray(jax.jit(blocks.call)(*arrays.values())[0])).all()


def test_gradients_without_a_check_where_the_mask_chooses_zero() -> None:
    for kind in KINDS:
        source = text(gradient(kind, 64, 64, 16, "bfloat16"), Schedule(cut=True))
        assert ("_idle = " in source) is (kind not in ZEROS)


def test_not_everything_subtracted_is_a_maximum_of_rows() -> None:
    """A term with all axes of the mask cannot be looked at before the loop."""
    i, j = Axis("i", 40), Axis("j", 40)
    x, t = Tensor("x", (40, 40), "float16"), Tensor("t", (40, 40), "float32")
    y = Tensor("y", (40,), "float32")
    chosen: Node = op("where", op("ge", Iota(i), Iota(j)), load(x, i, j), Const(-1e30))
    total = Accumulator("total", "sum", op("exp", op("sub", chosen, load(t, i, j))), (i,))
    item = store(y, (i,), total.carried())
    kernel = Kernel("sums", (GridAxis(i, 8),), (Loop(j, 8, (total,)),), (item,))
    assert cut_loops(kernel) == []


@pytest.mark.parametrize("capability", [80, 90])
def test_they_compile_and_do_not_spill(capability: int) -> None:
    cases = [gradient(kind, 2048, 2048, 64, "float16").tiles(T_row=64, T_step=64) for kind in KINDS]
    emitted = [emit(c.sgraph, c.sizes, [Schedule(4, 2, cut=True)])[0].source for c in cases]
    for binary in compiled(emitted, capability):
        assert binary.stack == 0
        assert binary.registers <= 255
