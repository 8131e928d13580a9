"""Programs and sGraphs that several tests of the ir use: attention, flash attention, split-K."""

from __future__ import annotations

from prism_jax.ir.nodes import (
    Axis,
    Const,
    Iota,
    Load,
    Node,
    Pointwise,
    Precision,
    Reduce,
    Store,
    Tensor,
    at,
)
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph


def op(name: str, *args: Node, p: int | float | str | tuple[int, ...] | None = None) -> Pointwise:
    return Pointwise(name, args, p)


def attention(n: int = 10, m: int = 13, d: int = 4) -> tuple[Program, SGraph]:
    """Causal attention, and its flash form: one kernel, one loop, three accumulators."""
    i, k, c, e = Axis("i", n), Axis("k", m), Axis("c", d), Axis("e", d)
    q, key = Tensor("q", (n, d), "float32"), Tensor("key", (m, d), "float32")
    v, o = Tensor("v", (m, d), "float32"), Tensor("o", (n, d), "float32")
    dot = Reduce(
        "sum",
        (c,),
        op("mul", Load(q, (at(i), at(c))), Load(key, (at(k), at(c)))),
        Precision("float32", "float32", "float32", "highest"),
    )
    score = op("where", op("ge", Iota(i), Iota(k)), dot, Const(float("-inf")))
    weight = op("exp", op("sub", score, Reduce("max", (k,), score)))
    value = Load(v, (at(k), at(e)))
    summed = Reduce("sum", (k,), op("mul", weight, value))
    out = op("div", summed, Reduce("sum", (k,), weight))
    program = Program("attention", (q, key, v), (Store(o, (at(i), at(e)), out),))

    top = Accumulator("m", "max", score, (i,))
    change = op("exp", op("sub", top.carried("old"), top.carried("new")))
    running = op("exp", op("sub", score, top.carried("new")))
    total = Accumulator("l", "sum", running, (i,), change, "mul", ("m",))
    acc = Accumulator("a", "sum", op("mul", running, value), (i, e), change, "mul", ("m",))
    kernel = Kernel(
        "flash",
        (GridAxis(i, "T_i"),),
        (Loop(k, "T_k", (top, total, acc)),),
        (Store(o, (at(i), at(e)), op("div", acc.carried(), total.carried())),),
    )
    return program, SGraph("attention", (q, key, v), (kernel,), (o,))


def matmul(n: int = 6, m: int = 5, depth: int = 11) -> tuple[Program, SGraph]:
    """A matrix product, split over the grid with its combining kernel, squared by a library."""
    i, j, k, s = Axis("i", n), Axis("j", m), Axis("k", depth), Axis("s", "S")
    a, b = Tensor("a", (n, depth), "float16"), Tensor("b", (depth, m), "float16")
    part, h = Tensor("part", ("S", n, m), "float32"), Tensor("h", (n, m), "float32")
    y = Tensor("y", (n, m), "float16")
    product = op("mul", Load(a, (at(i), at(k))), Load(b, (at(k), at(j))))
    whole = Reduce("sum", (k,), product, Precision("float16", "float32", "float16"))
    program = Program("square", (a, b), (Store(y, (at(i), at(j)), op("mul", whole, whole)),))

    acc = Accumulator("acc", "sum", product, (i, j), precision=whole.precision)
    first = Kernel(
        "parts",
        (GridAxis(s, 1), GridAxis(i, "T_i"), GridAxis(j, 2)),
        (Loop(k, "T_k", (acc,), split=s),),
        (Store(part, (at(s), at(i), at(j)), acc.carried()),),
    )
    merge = Accumulator("t", "sum", Load(part, (at(s), at(i), at(j))), (i, j))
    second = Kernel(
        "merge",
        (GridAxis(i, "T_i"),),
        (Loop(s, 1, (merge,)),),
        (Store(h, (at(i), at(j)), merge.carried()),),
    )
    hij = Load(h, (at(i), at(j)))
    square = LibraryCall("square", "xla", (Store(y, (at(i), at(j)), op("mul", hij, hij)),))
    return program, SGraph("square", (a, b), (first, second, square), (y,))


def gram(n: int = 5, m: int = 7, d: int = 6) -> tuple[Program, SGraph]:
    """Row sums of exp(x yᵀ): an inner loop over the feature axis, a store inside the outer loop."""
    i, j, c = Axis("i", n), Axis("j", m), Axis("c", d)
    x, y = Tensor("x", (n, d), "float32"), Tensor("y", (m, d), "float32")
    scores, sums = Tensor("scores", (n, m), "float32"), Tensor("sums", (n,), "float32")
    product = op("mul", Load(x, (at(i), at(c))), Load(y, (at(j), at(c))))
    score = op("exp", Reduce("sum", (c,), product))
    program = Program(
        "gram",
        (x, y),
        (Store(scores, (at(i), at(j)), score), Store(sums, (at(i),), Reduce("sum", (j,), score))),
    )
    dot = Accumulator("dot", "sum", product, (i, j))
    value = op("exp", dot.carried())
    total = Accumulator("total", "sum", value, (i,))
    kernel = Kernel(
        "gram",
        (GridAxis(i, "T_i"),),
        (
            Loop(
                j,
                "T_j",
                (total,),
                (Store(scores, (at(i), at(j)), value),),
                (Loop(c, "T_c", (dot,)),),
            ),
        ),
        (Store(sums, (at(i),), total.carried()),),
    )
    return program, SGraph("gram", (x, y), (kernel,), (scores, sums))
