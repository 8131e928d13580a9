"""sGraphs written by hand, one for each thing that emission must get right. Sizes and dtype are
arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Const,
    Iota,
    Load,
    Node,
    Pointwise,
    Precision,
    Reduce,
    Store,
    Tensor,
    Within,
    affine,
    at,
)
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph


@dataclass(frozen=True)
class Case:
    """An sGraph with the numbers for its symbols."""

    sgraph: SGraph
    sizes: dict[str, int]

    @property
    def name(self) -> str:
        return self.sgraph.name

    def tiles(self, **sizes: int) -> Case:
        return replace(self, sizes={**self.sizes, **sizes})


def op(name: str, *args: Node | float, parameter: str | int | None = None) -> Pointwise:
    return Pointwise(name, tuple(a if isinstance(a, Node) else Const(a) for a in args), parameter)


def mul(*args: Node | float) -> Node:
    first, *rest = args
    node = first if isinstance(first, Node) else Const(first)
    for other in rest:
        node = op("mul", node, other)
    return node


def load(tensor: Tensor, *axes: Axis) -> Load:
    return Load(tensor, tuple(at(a) for a in axes))


def record(dtype: str, algorithm: str | None = None) -> Precision:
    """What a product asks for. float32 ones ask for three TF32 passes, which the interpreter has
    exactly: one pass would hide other errors.
    """
    algorithm = algorithm or ("high" if dtype == "float32" else "default")
    return Precision(dtype, "float64" if dtype == "float64" else "float32", dtype, algorithm)


def store(tensor: Tensor, axes: tuple[Axis, ...], value: Node) -> Store:
    return Store(tensor, tuple(at(a) for a in axes), value)


def compute(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def lora(m: int, k: int, n: int, r: int, dtype: str) -> Case:
    i, j, kk, rr = Axis("i", m), Axis("j", n), Axis("k", k), Axis("r", r)
    x, w = Tensor("x", (m, k), dtype), Tensor("w", (k, n), dtype)
    a, b, y = Tensor("a", (k, r), dtype), Tensor("b", (r, n), dtype), Tensor("y", (m, n), dtype)
    p = record(dtype)
    xw = Accumulator("xw", "sum", mul(load(x, i, kk), load(w, kk, j)), (i, j), precision=p)
    xa = Accumulator("xa", "sum", mul(load(x, i, kk), load(a, kk, rr)), (i, rr), precision=p)
    low = Reduce("sum", (rr,), mul(xa.carried(), load(b, rr, j)), p)
    loop = Loop(kk, "T_k", (xw, xa))
    stores = (store(y, (i, j), op("add", xw.carried(), low)),)
    kernel = Kernel("lora", (GridAxis(i, "T_i"), GridAxis(j, "T_j")), (loop,), stores)
    graph = SGraph("lora", (x, w, a, b), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 32, "T_k": 32})


def gatedmlp(m: int, k: int, n: int, dtype: str) -> Case:
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    x, y = Tensor("x", (m, k), dtype), Tensor("y", (m, n), dtype)
    w1, w2 = Tensor("w1", (k, n), dtype), Tensor("w2", (k, n), dtype)
    p = record(dtype)
    gate = Accumulator("gate", "sum", mul(load(x, i, kk), load(w1, kk, j)), (i, j), precision=p)
    up = Accumulator("up", "sum", mul(load(x, i, kk), load(w2, kk, j)), (i, j), precision=p)
    silu = mul(gate.carried(), op("logistic", gate.carried()))
    stores = (store(y, (i, j), mul(silu, up.carried())),)
    grid = (GridAxis(i, "T_i"), GridAxis(j, "T_j"))
    kernel = Kernel("gatedmlp", grid, (Loop(kk, "T_k", (gate, up)),), stores)
    graph = SGraph("gatedmlp", (x, w1, w2), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 32, "T_k": 32})


def rmsnorm_linear(m: int, k: int, n: int, dtype: str) -> Case:
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    x, w, y = Tensor("x", (m, k), dtype), Tensor("w", (k, n), dtype), Tensor("y", (m, n), dtype)
    square = mul(load(x, i, kk), load(x, i, kk))
    ss = Accumulator("ss", "sum", square, (i,))
    p = record(dtype)
    xw = Accumulator("xw", "sum", mul(load(x, i, kk), load(w, kk, j)), (i, j), precision=p)
    scale = op("rsqrt", op("add", mul(ss.carried(), 1.0 / k), 1e-6))
    kernel = Kernel(
        "rmsnorm_linear",
        (GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", (ss, xw)),),
        (store(y, (i, j), mul(xw.carried(), scale)),),
    )
    graph = SGraph("rmsnorm_linear", (x, w), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 32, "T_k": 32})


def layernorm(m: int, k: int, dtype: str) -> Case:
    """Mean, variance, then the result: three loops over one axis, the last one stores."""
    i, kk = Axis("i", m), Axis("k", k)
    x, c, y = Tensor("x", (m, k), dtype), Tensor("c", (k,), dtype), Tensor("y", (m, k), dtype)
    total = Accumulator("total", "sum", load(x, i, kk), (i,))
    centred = op("sub", load(x, i, kk), mul(total.carried(), 1.0 / k))
    spread = Accumulator("spread", "sum", mul(centred, centred), (i,))
    scale = op("rsqrt", op("add", mul(spread.carried(), 1.0 / k), 1e-5))
    result = mul(centred, scale, load(c, kk))
    loops = (
        Loop(kk, "T_k", (total,)),
        Loop(kk, "T_k", (spread,)),
        Loop(kk, "T_k", (), (store(y, (i, kk), result),)),
    )
    kernel = Kernel("layernorm", (GridAxis(i, "T_i"),), loops, ())
    graph = SGraph("layernorm", (x, c), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_i": 4, "T_k": 16})


def softmax_accumulators(
    scores: Node,
    row: tuple[Axis, ...],
    value: Node | None,
    value_axes: tuple[Axis, ...],
    p: Precision,
) -> tuple[Accumulator, ...]:
    top = Accumulator("m", "max", scores, row)
    weight = op("exp", op("sub", scores, top.carried("new")))
    shift = op("exp", op("sub", top.carried("old"), top.carried("new")))
    total = Accumulator("l", "sum", weight, row, shift, "mul", ("m",))
    if value is None:
        return top, total
    out = Accumulator("o", "sum", mul(weight, value), value_axes, shift, "mul", ("m",), p)
    return top, total, out


def attention(
    b: int, n: int, m: int, d: int, dtype: str, causal: bool = True, fill: float = -math.inf
) -> Case:
    """softmax(mask(q k^T / sqrt(d))) v with a running maximum; layout b n h d with one head folded
    in b.
    """
    bb, i, j, dd = Axis("b", b), Axis("i", n), Axis("j", m), Axis("d", d)
    q, k = Tensor("q", (b, n, d), dtype), Tensor("k", (b, m, d), dtype)
    v, o = Tensor("v", (b, m, d), dtype), Tensor("o", (b, n, d), dtype)
    p = record(dtype)
    dot = Reduce("sum", (dd,), mul(load(q, bb, i, dd), load(k, bb, j, dd)), p)
    scores: Node = mul(dot, 1.0 / math.sqrt(d))
    if causal:
        scores = op("where", op("le", Iota(j), Iota(i)), scores, Const(fill))
    top, total, out = softmax_accumulators(scores, (bb, i), load(v, bb, j, dd), (bb, i, dd), p)
    result = op("div", out.carried(), total.carried())
    kernel = Kernel(
        "attention",
        (GridAxis(i, "T_i"), GridAxis(bb, 1)),
        (Loop(j, "T_j", (top, total, out)),),
        (store(o, (bb, i, dd), result),),
    )
    graph = SGraph("attention", (q, k, v), (kernel,), (o,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16})


def attention_split(b: int, n: int, m: int, d: int, splits: int, dtype: str) -> Case:
    """The keys split over the grid: each block leaves maximum, sum and output; a second kernel
    combines.
    """
    s = Axis("s", splits)
    base = attention(b, n, m, d, dtype, causal=False)
    (kernel,) = base.sgraph.kernels
    (loop,) = kernel.loops
    bb, i, dd = Axis("b", b), Axis("i", n), Axis("d", d)
    pm, pl = Tensor("pm", (splits, b, n), "float32"), Tensor("pl", (splits, b, n), "float32")
    po, o = Tensor("po", (splits, b, n, d), "float32"), base.sgraph.outputs[0]
    top, total, out = loop.accumulators
    first = Kernel(
        "attention_split",
        (GridAxis(s, 1), *kernel.grid),
        (replace(loop, split=s),),
        (
            store(pm, (s, bb, i), top.carried()),
            store(pl, (s, bb, i), total.carried()),
            store(po, (s, bb, i, dd), out.carried()),
        ),
    )
    high = Reduce("max", (s,), load(pm, s, bb, i))
    share = op("exp", op("sub", load(pm, s, bb, i), high))
    lower = Reduce("sum", (s,), mul(share, load(pl, s, bb, i)))
    upper = Reduce("sum", (s,), mul(share, load(po, s, bb, i, dd)))
    second = Kernel(
        "attention_combine",
        (GridAxis(bb, 1), GridAxis(i, 8)),
        (),
        (store(o, (bb, i, dd), op("div", upper, lower)),),
    )
    graph = SGraph("attention_split", base.sgraph.inputs, (first, second), (o,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16})


def logsumexp(n: int, m: int, d: int, dtype: str) -> Case:
    """-eps * logsumexp((g - |x - y|^2) / eps): the inner distance is a sum over a short axis."""
    i, j, dd = Axis("i", n), Axis("j", m), Axis("d", d)
    x, y = Tensor("x", (n, d), dtype), Tensor("y", (m, d), dtype)
    g, f = Tensor("g", (m,), dtype), Tensor("f", (n,), dtype)
    gap = op("sub", load(x, i, dd), load(y, j, dd))
    distance = Reduce("sum", (dd,), mul(gap, gap))
    scores = mul(op("sub", load(g, j), distance), 2.0)
    top, total = softmax_accumulators(scores, (i,), None, (), record(dtype))
    result = mul(op("add", top.carried(), op("log", total.carried())), -0.5)
    kernel = Kernel(
        "logsumexp",
        (GridAxis(i, "T_i"),),
        (Loop(j, "T_j", (top, total)),),
        (store(f, (i,), result),),
    )
    graph = SGraph("logsumexp", (x, y, g), (kernel,), (f,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16})


def rbf(n: int, m: int, d: int, e: int, dtype: str) -> Case:
    """sum_j exp(-|x_i - y_j|^2 / 2) v_j with the expanded square and two contractions."""
    i, j, dd, ee = Axis("i", n), Axis("j", m), Axis("d", d), Axis("e", e)
    x, y = Tensor("x", (n, d), dtype), Tensor("y", (m, d), dtype)
    v, o = Tensor("v", (m, e), dtype), Tensor("o", (n, e), dtype)
    p = record(dtype, "highest")
    cross = Reduce("sum", (dd,), mul(load(x, i, dd), load(y, j, dd)), p)
    xx = Reduce("sum", (dd,), mul(load(x, i, dd), load(x, i, dd)))
    yy = Reduce("sum", (dd,), mul(load(y, j, dd), load(y, j, dd)))
    distance = op("sub", op("add", xx, yy), mul(2.0, cross))
    weight = op("exp", mul(distance, -0.5))
    out = Accumulator("o", "sum", mul(weight, load(v, j, ee)), (i, ee), precision=p)
    kernel = Kernel(
        "rbf", (GridAxis(i, "T_i"),), (Loop(j, "T_j", (out,)),), (store(o, (i, ee), out.carried()),)
    )
    graph = SGraph("rbf", (x, y, v), (kernel,), (o,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16})


def split_k(m: int, k: int, n: int, splits: int, dtype: str) -> Case:
    """A product with its summed axis split over the grid, and the kernel that adds the parts."""
    i, j, kk, s = Axis("i", m), Axis("j", n), Axis("k", k), Axis("s", "S")
    x, w, y = Tensor("x", (m, k), dtype), Tensor("w", (k, n), dtype), Tensor("y", (m, n), dtype)
    part = Tensor("part", ("S", m, n), "float32")
    p = record(dtype)
    xw = Accumulator("xw", "sum", mul(load(x, i, kk), load(w, kk, j)), (i, j), precision=p)
    first = Kernel(
        "split_k",
        (GridAxis(s, 1), GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", (xw,), split=s),),
        (store(part, (s, i, j), xw.carried()),),
    )
    second = Kernel(
        "split_k_sum",
        (GridAxis(i, 1), GridAxis(j, "T_j")),
        (),
        (store(y, (i, j), Reduce("sum", (s,), load(part, s, i, j))),),
    )
    graph = SGraph("split_k", (x, w), (first, second), (y,), compute(dtype))
    return Case(graph, {"S": splits, "T_i": 16, "T_j": 32, "T_k": 32})


def kmeans(n: int, c: int, d: int, dtype: str, nearest: bool = True) -> Case:
    """The index of the nearest (or farthest) centre: argmin carried through a loop over the
    centres.
    """
    i, j, dd = Axis("i", n), Axis("j", c), Axis("d", d)
    x, y, o = Tensor("x", (n, d), dtype), Tensor("c", (c, d), dtype), Tensor("o", (n,), "int32")
    cross = Reduce("sum", (dd,), mul(load(x, i, dd), load(y, j, dd)), record(dtype, "highest"))
    yy = Reduce("sum", (dd,), mul(load(y, j, dd), load(y, j, dd)))
    distance = op("sub", yy, mul(2.0, cross))
    best = Accumulator(
        "best", "argmin" if nearest else "argmax", distance, (i,), index_sort="int32"
    )
    kernel = Kernel(
        "kmeans",
        (GridAxis(i, "T_i"),),
        (Loop(j, "T_j", (best,)),),
        (store(o, (i,), best.carried()),),
    )
    graph = SGraph("kmeans", (x, y), (kernel,), (o,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16})


def heads(b: int, h: int, n: int, k: int, e: int, dtype: str) -> Case:
    """x[b,h,n,k] w[h,k,e]: five axes, four of them on the grid, one output transposed to b n h
    e.
    """
    bb, hh, i, kk, j = Axis("b", b), Axis("h", h), Axis("i", n), Axis("k", k), Axis("j", e)
    x, w = Tensor("x", (b, h, n, k), dtype), Tensor("w", (h, k, e), dtype)
    y, z = Tensor("y", (b, n, h, e), dtype), Tensor("z", (b, h, n), dtype)
    p = record(dtype)
    summand = mul(load(x, bb, hh, i, kk), load(w, hh, kk, j))
    xw = Accumulator("xw", "sum", summand, (bb, hh, i, j), precision=p)
    kernel = Kernel(
        "heads",
        (GridAxis(bb, 1), GridAxis(hh, 1), GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", (xw,)),),
        (store(y, (bb, i, hh, j), xw.carried()),),
    )
    tail = LibraryCall(
        "largest", "xla", (store(z, (bb, hh, i), Reduce("max", (j,), load(y, bb, i, hh, j))),)
    )
    graph = SGraph("heads", (x, w), (kernel, tail), (y, z), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16, "T_k": 16})


def batched_tiles(b: int, n: int, k: int, e: int, dtype: str) -> Case:
    """A block holds several batch elements: a product with a batch axis, and rows that are two
    axes.
    """
    bb, i, kk, j = Axis("b", b), Axis("i", n), Axis("k", k), Axis("j", e)
    x, w = Tensor("x", (b, n, k), dtype), Tensor("w", (b, k, e), dtype)
    u, y = Tensor("u", (k, e), dtype), Tensor("y", (b, n, e), dtype)
    p = record(dtype)
    xw = Accumulator(
        "xw", "sum", mul(load(x, bb, i, kk), load(w, bb, kk, j)), (bb, i, j), precision=p
    )
    xu = Accumulator("xu", "sum", mul(load(x, bb, i, kk), load(u, kk, j)), (bb, i, j), precision=p)
    kernel = Kernel(
        "batched_tiles",
        (GridAxis(bb, "T_b"), GridAxis(i, "T_i")),
        (Loop(kk, "T_k", (xw, xu)),),
        (store(y, (bb, i, j), op("sub", xw.carried(), xu.carried())),),
    )
    graph = SGraph("batched_tiles", (x, w, u), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_b": 2, "T_i": 16, "T_k": 16})


def inner_loop(n: int, m: int, d: int, e: int, dtype: str) -> Case:
    """Scores that are themselves a loop over a long axis, inside the loop over keys."""
    i, j, dd, ee = Axis("i", n), Axis("j", m), Axis("d", d), Axis("e", e)
    q, k = Tensor("q", (n, d), dtype), Tensor("k", (m, d), dtype)
    v, o = Tensor("v", (m, e), dtype), Tensor("o", (n, e), dtype)
    p = record(dtype)
    s = Accumulator("s", "sum", mul(load(q, i, dd), load(k, j, dd)), (i, j), precision=p)
    scores = mul(s.carried(), 0.125)
    top, total, out = softmax_accumulators(scores, (i,), load(v, j, ee), (i, ee), p)
    loop = Loop(j, "T_j", (top, total, out), inner=(Loop(dd, "T_d", (s,)),))
    result = op("div", out.carried(), total.carried())
    kernel = Kernel("inner_loop", (GridAxis(i, "T_i"),), (loop,), (store(o, (i, ee), result),))
    graph = SGraph("inner_loop", (q, k, v), (kernel,), (o,), compute(dtype))
    return Case(graph, {"T_i": 16, "T_j": 16, "T_d": 16})


def embedding(v: int, n: int, d: int, dtype: str) -> Case:
    """Rows gathered by integers (fill outside), a shifted window of the positions, and their
    product's sum.
    """
    i, kk = Axis("i", n), Axis("k", d)
    table, pos = Tensor("table", (v, d), dtype), Tensor("pos", (n, d), dtype)
    ids, y = Tensor("ids", (n,), "int32"), Tensor("y", (n, d), dtype)
    row = Load(ids, (at(i),))
    found = Load(table, (at(row), at(kk)), (Within(at(row), 0, v),), Const(0.5))
    shifted = Load(
        pos, (affine([(i, 1)], -2), at(kk)), (Within(affine([(i, 1)], -2), 0, n),), Const(0.0)
    )
    value = op("add", found, shifted)
    kernel = Kernel(
        "embedding", (GridAxis(i, "T_i"), GridAxis(kk, "T_k")), (), (store(y, (i, kk), value),)
    )
    graph = SGraph("embedding", (table, pos, ids), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_i": 8, "T_k": 16})


def reductions(n: int, m: int, dtype: str) -> Case:
    """Every other monoid, over held axes and in loops, with integers and booleans."""
    i, j = Axis("i", n), Axis("j", m)
    x, c = Tensor("x", (n, m), dtype), Tensor("c", (n, m), "int32")
    low, big = Tensor("low", (n,), dtype), Tensor("big", (n,), "int32")
    some, every = Tensor("some", (n,), "bool"), Tensor("every", (n,), "bool")
    product, first = Tensor("product", (n,), dtype), Tensor("first", (n,), "int32")
    xs, cs = load(x, i, j), load(c, i, j)
    positive = op("gt", cs, Const(0, "int32"))
    accumulators = (
        Accumulator("low", "min", xs, (i,)),
        Accumulator("some", "any", positive, (i,)),
        Accumulator("product", "prod", op("add", mul(xs, 0.01), 1.0), (i,)),
    )
    stores = (
        store(low, (i,), accumulators[0].carried()),
        store(some, (i,), accumulators[1].carried()),
        store(product, (i,), accumulators[2].carried()),
        store(big, (i,), Reduce("max", (j,), op("add", cs, Const(3, "int32")))),
        store(
            every, (i,), Reduce("all", (j,), op("or", positive, op("lt", cs, Const(1, "int32"))))
        ),
        store(first, (i,), Reduce("argmax", (j,), xs, index_sort="int32")),
    )
    kernel = Kernel("reductions", (GridAxis(i, "T_i"),), (Loop(j, "T_j", accumulators),), stores)
    outputs = tuple(s.tensor for s in stores)
    graph = SGraph("reductions", (x, c), (kernel,), outputs, compute(dtype))
    return Case(graph, {"T_i": 4, "T_j": 8})


def reshaped(a: int, b: int, c: int, dtype: str) -> Case:
    """A merged input dimension, a strided slice, a diagonal, and an output that merges two axes."""
    i, j, k = Axis("i", a), Axis("j", b), Axis("k", c)
    x, z = Tensor("x", (a * b, c), dtype), Tensor("z", (2 * b + 1, 3), dtype)
    w, y = Tensor("w", (a, a), dtype), Tensor("y", (a, c * b), dtype)
    merged = Load(x, (affine([(i, b), (j, 1)]), at(k)))
    strided = Load(z, (affine([(j, 2)], 1), at(2)))
    diagonal = Load(w, (at(i), at(i)))
    value = mul(op("sub", merged, strided), diagonal)
    kernel = Kernel(
        "reshaped",
        (GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (),
        (Store(y, (at(i), affine([(k, b), (j, 1)])), value),),
    )
    graph = SGraph("reshaped", (x, z, w), (kernel,), (y,), compute(dtype))
    return Case(graph, {"T_i": 2, "T_j": 4})


def final(accumulator: str, axes: tuple[Axis, ...]) -> Carried:
    return Carried(accumulator, "final", "real", axes)


def cases(dtype: str, big: bool = True) -> list[Case]:
    """Every graph at sizes that tiles divide, or (big False) at odd sizes, below a tile, and of
    one.
    """
    if big:
        return [
            lora(32, 64, 64, 16, dtype),
            gatedmlp(16, 64, 64, dtype),
            rmsnorm_linear(16, 64, 64, dtype),
            layernorm(8, 32, dtype),
            attention(2, 32, 32, 16, dtype),
            attention_split(2, 16, 64, 16, 2, dtype),
            logsumexp(32, 32, 4, dtype),
            rbf(32, 32, 16, 8, dtype),
            split_k(16, 128, 64, 2, dtype),
            kmeans(32, 32, 16, dtype),
            heads(2, 2, 16, 32, 16, dtype),
            batched_tiles(2, 16, 32, 16, dtype),
            inner_loop(16, 32, 32, 16, dtype),
            embedding(11, 16, 32, dtype),
            reductions(8, 16, dtype),
            reshaped(4, 8, 4, dtype),
        ]
    return [
        lora(3, 40, 37, 5, dtype),
        gatedmlp(1, 33, 50, dtype),
        rmsnorm_linear(17, 45, 33, dtype),
        layernorm(5, 19, dtype),
        attention(1, 21, 21, 5, dtype),
        attention(2, 20, 27, 8, dtype, causal=True, fill=-1e30),
        attention_split(1, 3, 50, 7, 3, dtype),
        logsumexp(19, 21, 3, dtype),
        rbf(17, 21, 3, 1, dtype),
        split_k(2, 100, 33, 3, dtype),
        split_k(2, 30, 33, 3, dtype),  # fewer steps than parts
        kmeans(19, 21, 5, dtype, nearest=False),
        heads(1, 3, 5, 17, 9, dtype),
        batched_tiles(3, 5, 17, 9, dtype),
        inner_loop(5, 17, 19, 3, dtype),
        embedding(5, 13, 9, dtype),
        reductions(5, 11, dtype),
        reshaped(3, 5, 2, dtype),
        layernorm(1, 1, dtype),
    ]
