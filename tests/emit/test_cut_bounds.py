"""Cut loops whose bounds are beyond the axis: blocks of rows that are masked throughout."""

from __future__ import annotations

import jax
import pytest

from prism_jax.emit import lax_blocks
from prism_jax.instantiate.plan import Schedule
from prism_jax.ir.nodes import Axis, Const, Iota, Node, Reduce, Tensor
from prism_jax.ir.sgraph import GridAxis, Kernel, Loop, SGraph

from .graphs import Case, load, mul, op, record, softmax_accumulators, store
from .harness import agree, expected, inputs, interpreted


def shifted(i: Axis, by: int) -> Node:
    return op("add", Iota(i), Const(by, "int32"))


def masked(n: int, m: int, d: int, kind: str, by: int) -> Case:
    """Attention with keys that lie `by` or more behind the query, or before it, or both."""
    i, j, dd = Axis("i", n), Axis("j", m), Axis("d", d)
    q, k, v, o = (
        Tensor(name, (s, d), "float32") for name, s in zip("qkvo", (n, m, m, n), strict=True)
    )
    first, last = op("ge", Iota(j), shifted(i, by)), op("le", Iota(j), shifted(i, by + 2))
    mask = {
        "from": first,
        "band": op("and", first, last),
        "to": op("le", Iota(j), shifted(i, -by)),
    }[kind]
    dot = Reduce("sum", (dd,), mul(load(q, i, dd), load(k, j, dd)), record("float32"))
    scores = op("where", mask, dot, Const(-1e30))
    top, total, out = softmax_accumulators(scores, (i,), load(v, j, dd), (i, dd), record("float32"))
    result = store(o, (i, dd), op("div", out.carried(), total.carried()))
    kernel = Kernel(
        "masked", (GridAxis(i, "T_i"),), (Loop(j, "T_j", (top, total, out)),), (result,)
    )
    return Case(SGraph("masked", (q, k, v), (kernel,), (o,), "float32"), {"T_i": 8, "T_j": 8})


@pytest.mark.parametrize("by", [9, 60])
@pytest.mark.parametrize("sizes", [(20, 16, 8), (21, 13, 5), (5, 24, 8)])
@pytest.mark.parametrize("kind", ["from", "band", "to"])
def test_no_step_is_beyond_the_axis(kind: str, sizes: tuple[int, int, int], by: int) -> None:
    """Rows without a key have equal weights, for which the steps that were left out are done."""
    case = masked(*sizes, kind, by)
    arrays = inputs(case)
    wanted = expected(case, arrays)
    agree(case, interpreted(case, arrays, Schedule(cut=True)), wanted, "float32")
    blocks = lax_blocks.emit(case.sgraph, case.sizes, cut=True)
    agree(case, jax.jit(blocks.call)(*arrays.values()), wanted, "float32")
