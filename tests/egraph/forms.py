"""Programs for tests: named ones, written as index notation is written on paper, and random ones
that reach every axiom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from prism_jax.ir.nodes import (
    REAL,
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
from prism_jax.ir.program import Program, walk

HALF = Precision("float16", "float32", "float16")


def load(name: str, *axes: Axis, dtype: str = "float16") -> Node:
    return Load(Tensor(name, tuple(a.size for a in axes), dtype), tuple(at(a) for a in axes))


def op(name: str, *args: Node | float, parameter: Any = None) -> Node:
    nodes = tuple(a if isinstance(a, Node) else Const(float(a)) for a in args)
    return Pointwise(name, nodes, parameter)


def mul(a: Node | float, b: Node | float) -> Node:
    return op("mul", a, b)


def add(a: Node | float, b: Node | float) -> Node:
    return op("add", a, b)


def sub(a: Node | float, b: Node | float) -> Node:
    return op("sub", a, b)


def div(a: Node | float, b: Node | float) -> Node:
    return op("div", a, b)


def total(axis: Axis, body: Node, precision: Precision | None = None) -> Node:
    return Reduce("sum", (axis,), body, precision)


def dot(axis: Axis, a: Node, b: Node) -> Node:
    return Reduce("sum", (axis,), mul(a, b), HALF)


def program(name: str, *outputs: Node) -> Program:
    """A program whose outputs have their free axes, sorted, as dimensions."""
    tensors = {n.tensor.name: n.tensor for n in walk(outputs) if isinstance(n, Load)}
    stores = tuple(
        Store(
            Tensor(f"out{n}", tuple(a.size for a in value.axes_free), _dtype(value)),
            tuple(at(a) for a in value.axes_free),
            value,
        )
        for n, value in enumerate(outputs)
    )
    return Program(name, tuple(tensors[key] for key in sorted(tensors)), stores)


def _dtype(value: Node) -> str:
    return "float16" if value.sort == REAL else value.sort


def softmax(s: Node, axis: Axis) -> Node:
    e = op("exp", sub(s, Reduce("max", (axis,), s)))
    return div(e, total(axis, e))


def rms_norm(x: Node, axis: Axis) -> Node:
    mean = div(total(axis, mul(x, x)), float(axis.size))
    return mul(x, op("rsqrt", add(mean, 1e-6)))


def l2_norm(x: Node, axis: Axis) -> Node:
    return mul(x, op("rsqrt", add(total(axis, mul(x, x)), 1e-6)))


# ---- the suites; `n` scales the sizes down for evaluation


def axes(**sizes: int) -> list[Axis]:
    return [Axis(name, size) for name, size in sizes.items()]


def low_rank(big: bool = True) -> Program:
    i, k, j, r = axes(i=16, k=4096, j=4096, r=16) if big else axes(i=2, k=7, j=6, r=2)
    inner = dot(r, load("a", k, r), load("b", r, j))
    return program("lowrank", dot(k, load("x", i, k), inner))


def linear_attention(big: bool = True) -> Program:
    i, j, d, e = axes(i=4096, j=4096, d=64, e=64) if big else axes(i=7, j=6, d=2, e=3)
    scores = dot(d, load("q", i, d), load("k", j, d))
    return program("linear_attention", dot(j, scores, load("v", j, e)))


def pairwise(big: bool = True) -> Program:
    i, j, d = axes(i=2048, j=2048, d=64) if big else axes(i=5, j=6, d=4)
    return program(
        "pairwise", total(d, op("integer_pow", sub(load("x", i, d), load("y", j, d)), parameter=2))
    )


def scaled(big: bool = True) -> Program:
    i, k, j = axes(i=4096, k=1024, j=1024) if big else axes(i=6, k=4, j=3)
    x, w = load("x", i, k), load("w", k, j)
    return program("scaled", dot(k, div(x, load("s", i)), w), dot(k, mul(x, load("c", k)), w))


def shared(big: bool = True) -> Program:
    i, k, j = axes(i=8, k=4096, j=1024) if big else axes(i=2, k=4, j=3)
    return program("shared", *(dot(k, load("x", i, k), load(w, k, j)) for w in ("wq", "wk", "wv")))


def gqa(big: bool = True) -> Program:
    g, i, j, d, e = axes(g=2, i=256, j=4096, d=64, e=64) if big else axes(g=2, i=3, j=5, d=4, e=3)
    scores = dot(d, load("q", g, i, d), load("k", g, d, j))
    return program("gqa", dot(j, softmax(scores, j), load("v", g, j, e)))


def qk_norm(big: bool = True) -> Program:
    g, i, j, d, e = axes(g=2, i=256, j=4096, d=64, e=64) if big else axes(g=2, i=3, j=5, d=4, e=3)
    scores = dot(d, rms_norm(load("q", g, i, d), d), rms_norm(load("k", g, d, j), d))
    return program("qknorm", dot(j, softmax(scores, j), load("v", g, j, e)))


def rms_norm_linear(big: bool = True) -> Program:
    i, k, j = axes(i=16, k=4096, j=6144) if big else axes(i=2, k=5, j=4)
    return program("rmsnorm", dot(k, rms_norm(load("x", i, k), k), load("w", k, j)))


def gated_mlp(big: bool = True) -> Program:
    i, k, j = axes(i=8, k=4096, j=4096) if big else axes(i=2, k=5, j=4)
    x = load("x", i, k)
    gate = dot(k, x, load("w1", k, j))
    return program("gatedmlp", mul(mul(gate, op("logistic", gate)), dot(k, x, load("w2", k, j))))


def lora(big: bool = True) -> Program:
    i, k, j, r = axes(i=16, k=256, j=4096, r=16) if big else axes(i=2, k=5, j=4, r=2)
    x = load("x", i, k)
    low = dot(r, dot(k, x, load("a", k, r)), load("b", r, j))
    return program("lora", add(dot(k, x, load("w", k, j)), low))


def n_trans(big: bool = True) -> Program:
    i, k = axes(i=8, k=4096) if big else axes(i=2, k=5)
    x, h, a = (load(name, i, k) for name in "xha")
    return program("ntrans", l2_norm(add(x, mul(a, sub(l2_norm(h, k), x))), k))


def rms_norm_mlp(big: bool = True) -> Program:
    i, k, j = axes(i=8, k=4096, j=4096) if big else axes(i=2, k=5, j=4)
    x = rms_norm(load("x", i, k), k)
    return program("rmsnorm_mlp", mul(dot(k, x, load("a", k, j)), dot(k, x, load("b", k, j))))


def layer_norm_linear(big: bool = True) -> Program:
    i, k, j = axes(i=4096, k=1024, j=1024) if big else axes(i=9, k=4, j=8)
    y = layer_norm(load("x", i, k), load("g", k), load("b", k), k)
    return program("layernorm", dot(k, y, load("w", k, j)))


def layer_norm(x: Node, g: Node, b: Node, axis: Axis) -> Node:
    centred = sub(x, div(total(axis, x), float(axis.size)))
    variance = div(total(axis, mul(centred, centred)), float(axis.size))
    return add(mul(mul(centred, op("rsqrt", add(variance, 1e-5))), g), b)


def kmeans(big: bool = True) -> Program:
    i, j, d = axes(i=65536, j=1024, d=64) if big else axes(i=9, j=5, d=3)
    distance = total(d, op("integer_pow", sub(load("x", i, d), load("c", j, d)), parameter=2))
    return program("kmeans", Reduce("argmin", (j,), distance, None, "int32"))


def block(big: bool = True) -> Program:
    """A pre-norm transformer block: causal attention and a GELU MLP, with biases and residuals."""
    s, width, h = (128, 512, 8) if big else (3, 8, 2)
    i, j, a, o, f, d = axes(i=s, j=s, a=width, o=width, f=4 * width, d=width // h)
    head = Axis("h", h)

    def normed(x: Node, number: int) -> Node:
        return layer_norm(x, load(f"g{number}", a), load(f"b{number}", a), a)

    def projected(row: Axis, name: str) -> Node:
        return dot(a, normed(load("x", row, a), 1), load(name, a, head, d))

    scores = mul(dot(d, projected(i, "wq"), projected(j, "wk")), (width // h) ** -0.5)
    scores = op("where", Pointwise("le", (Iota(j), Iota(i))), scores, -1e30)
    attended = dot(j, softmax(scores, j), projected(j, "wv"))

    def stream(column: Axis) -> Node:
        out = Reduce("sum", (head, d), mul(attended, load("wo", head, d, column)), HALF)
        return add(load("x", i, column), out)

    hidden = add(dot(a, normed(stream(a), 2), load("w1", a, f)), load("c1", f))
    cube = mul(mul(hidden, hidden), hidden)
    inner = op("tanh", mul(0.7978845608, add(hidden, mul(0.044715, cube))))
    gelu = mul(mul(0.5, hidden), add(1.0, inner))
    out = dot(f, gelu, load("w2", f, o))
    return program("block", add(add(stream(o), out), load("c2", o)))


Maker = Callable[..., Program]
MIRAGE: tuple[Maker, ...] = (gqa, qk_norm, rms_norm_linear, gated_mlp, lora, n_trans)
PRISM: tuple[Maker, ...] = (rms_norm_linear, rms_norm_mlp, gated_mlp, gqa, qk_norm)
ALGEBRA: tuple[Maker, ...] = (low_rank, linear_attention, pairwise, scaled, shared)
SUITES: tuple[Maker, ...] = (
    *MIRAGE, rms_norm_mlp, *ALGEBRA, layer_norm_linear, kmeans, block,
)  # fmt: skip


def inputs(p: Program, seed: int = 0) -> dict[str, np.ndarray]:
    """Moderate random inputs; names with an s are divisors and stay away from zero."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for tensor in p.inputs:
        shape = tuple(int(n) for n in tensor.shape)
        if tensor.dtype == "bool":
            found[tensor.name] = rng.random(shape) < 0.5
        elif "int" in tensor.dtype:
            found[tensor.name] = rng.integers(0, 5, shape).astype(tensor.dtype)
        else:
            x = rng.standard_normal(shape)
            found[tensor.name] = np.abs(x) + 0.5 if tensor.name == "s" else x
    return found


# ---- random programs of sums, products and reductions over few tensors: what the axioms are about


@st.composite
def algebra(draw: st.DrawFn, depth: int = 4) -> Program:
    """Random programs of real arithmetic in which shared factors, nested contractions, scales and
    shifts are common.
    """
    sizes = {name: draw(st.sampled_from((2, 3, 5))) for name in "ijkr"}
    known = axes(**sizes)
    pool: list[Node] = [load("m0", *known[:2]), load("m1", *known[1:3]), load("v0", known[0])]

    def leaf() -> Node:
        if draw(st.integers(0, 2)) == 0:
            some = draw(st.permutations(known))[: draw(st.integers(0, 2))]
            name = "t" + "".join(a.name for a in some) + str(draw(st.integers(0, 1)))
            pool.append(load(name, *some))
            return pool[-1]
        return draw(st.sampled_from(pool))

    def grow(level: int) -> Node:
        if level == 0:
            return leaf()
        node = make(draw(st.sampled_from(_FORMS)), level - 1)
        pool.append(node)
        return node

    def reduced(monoid: str, body: Node) -> Node:
        free = body.axes_free or (known[0],)
        return Reduce(monoid, (draw(st.sampled_from(free)),), body, None)

    def make(form: str, level: int) -> Node:
        match form:
            case "dot":
                return reduced("sum", mul(grow(level), grow(level)))
            case "square":
                return reduced("sum", op("integer_pow", sub(grow(level), leaf()), parameter=2))
            case "sum" | "max" | "min":
                return reduced(form, grow(level))
            case "arg":
                body = grow(level)
                free = body.axes_free or (known[0],)
                which = Reduce(
                    draw(st.sampled_from(("argmax", "argmin"))), free[:1], body, None, "int32"
                )
                return op("where", Pointwise("eq", (which, Const(0, "int32"))), leaf(), leaf())
            case "scale":
                return mul(grow(level), draw(st.sampled_from((2.0, -1.0, 0.5, -0.25))))
            case "norm":
                return op("rsqrt", add(op("abs", grow(level)), 0.5))
            case "positive":
                return op("abs", mul(*[grow(level)] * 2))
            case "exp":
                return op("exp", op("min", grow(level), 1.0))
            case "same":
                x = grow(level)
                pick = draw(st.sampled_from(("max", "min", "where")))
                if pick == "where":
                    return op("where", Pointwise("lt", (leaf(), leaf())), x, x)
                return op(pick, x, x)
            case "common":
                a, b, c = grow(level), leaf(), leaf()
                return add(mul(a, b), mul(a, c))
            case "dots":
                a, b = grow(level), leaf()
                axis = draw(st.sampled_from(known[:3]))
                first = Reduce("sum", (axis,), mul(a, b), None)
                other = load("w" + "".join(x.name for x in b.axes_free), *b.axes_free)
                return add(first, Reduce("sum", (axis,), mul(a, other), None))
            case _:
                return op(form, grow(level), grow(level))

    roots = [grow(draw(st.integers(1, depth))) for _ in range(draw(st.integers(1, 2)))]
    return program("random", *roots)


_FORMS = (
    "dot", "dot", "dot", "square", "sum", "max", "min", "arg", "scale", "norm", "positive", "exp",
    "same", "common", "dots", "add", "sub", "mul",
)  # fmt: skip
