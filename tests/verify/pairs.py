"""Programs beside right sGraphs for them: what the checker must accept, and what mutants are made
from.

Every pair is small enough for exhaustive evaluation. The sGraphs are written by hand (`tests/emit`
and here), so that the checker is not tested only on what the explorer happens to make.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prism_jax.ir.nodes import Axis, Iota, Load, Node, Reduce, Store, Tensor, Within, affine, at
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, LibraryCall, Loop, SGraph
from tests.emit import graphs as g
from tests.verify.build import add, div, exp, mul, op, out, red, square, sub, t, total

F = "float32"


@dataclass(frozen=True)
class Pair:
    program: Program
    sgraph: SGraph
    sizes: dict[str, int]

    @property
    def name(self) -> str:
        return self.sgraph.name


def pair(case: g.Case, *values: Node) -> Pair:
    """The sGraph, and the program that stores these values where its last kernels do."""
    graph = case.sgraph
    stores: list[Store] = []
    last = {
        s.tensor: s
        for n in graph.nodes
        for s in (n.all_stores if isinstance(n, Kernel) else n.stores)
    }
    for tensor, value in zip(graph.outputs, values, strict=True):
        stores.append(Store(tensor, last[tensor].index, value))
    return Pair(Program(graph.name, graph.inputs, tuple(stores), graph.compute), graph, case.sizes)


def matmul(m: int = 5, k: int = 7, n: int = 6) -> Pair:
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    a, b = t("a", i, kk), t("b", kk, j)
    acc = Accumulator("acc", "sum", mul(a, b), (i, j))
    kernel = Kernel(
        "matmul",
        (GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", (acc,)),),
        (out(acc.carried(), i, j),),
    )
    return _pair("matmul", (kernel,), out(total(mul(a, b), kk), i, j), T_i=2, T_j=4, T_k=3)


def _pair(name: str, nodes: tuple[Kernel | LibraryCall, ...], *stores: Store, **sizes: int) -> Pair:
    made = Program(name, (), stores)
    found = {n.tensor.name: n.tensor for n in made.nodes if isinstance(n, Load)}
    inputs = tuple(found[n] for n in sorted(found))
    whole = Program(name, inputs, stores)
    return Pair(whole, SGraph(name, inputs, nodes, tuple(s.tensor for s in stores)), sizes)


def lora(m: int = 4, k: int = 6, n: int = 5, r: int = 2) -> Pair:
    i, j, kk, rr = Axis("i", m), Axis("j", n), Axis("k", k), Axis("r", r)
    low = total(mul(t("x", i, kk), t("a", kk, rr)), kk)
    value = add(total(mul(t("x", i, kk), t("w", kk, j)), kk), total(mul(low, t("b", rr, j)), rr))
    return pair(g.lora(m, k, n, r, F).tiles(T_i=2, T_j=2, T_k=4), value)


def gatedmlp(m: int = 4, k: int = 6, n: int = 5) -> Pair:
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    gate, up = (total(mul(t("x", i, kk), t(w, kk, j)), kk) for w in ("w1", "w2"))
    value = mul(mul(gate, op("logistic", gate)), up)
    return pair(g.gatedmlp(m, k, n, F).tiles(T_i=3, T_j=2, T_k=4), value)


def rmsnorm_linear(m: int = 4, k: int = 6, n: int = 5) -> Pair:
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    x = t("x", i, kk)
    mean = div(total(square(x), kk), float(k))
    normal = mul(x, op("rsqrt", add(mean, 1e-6)))
    value = total(mul(normal, t("w", kk, j)), kk)
    return pair(g.rmsnorm_linear(m, k, n, F).tiles(T_i=3, T_j=2, T_k=4), value)


def layernorm(m: int = 3, k: int = 6) -> Pair:
    i, kk = Axis("i", m), Axis("k", k)
    x = t("x", i, kk)
    centred = sub(x, div(total(x, kk), float(k)))
    spread = div(total(square(centred), kk), float(k))
    value = mul(div(centred, op("sqrt", add(spread, 1e-5))), t("c", kk))
    return pair(g.layernorm(m, k, F).tiles(T_i=2, T_k=4), value)


def _attention_value(b: int, n: int, m: int, d: int, causal: bool) -> Node:
    bb, i, j, dd = Axis("b", b), Axis("i", n), Axis("j", m), Axis("d", d)
    inner = Axis("d", d)
    s = mul(total(mul(t("q", bb, i, inner), t("k", bb, j, inner)), inner), d**-0.5)
    if causal:
        s = op("where", op("le", Iota(j), Iota(i)), s, float("-inf"))
    p = exp(sub(s, red("max", s, j)))
    return total(mul(div(p, total(p, j)), t("v", bb, j, dd)), j)


def attention(causal: bool = True, b: int = 2, n: int = 4, m: int = 5, d: int = 4) -> Pair:
    return pair(
        g.attention(b, n, m, d, F, causal).tiles(T_i=3, T_j=2), _attention_value(b, n, m, d, causal)
    )


def attention_split() -> Pair:
    b, n, m, d = 1, 3, 7, 4
    case = g.attention_split(b, n, m, d, 2, F).tiles(T_i=2, T_j=2)
    return pair(case, _attention_value(b, n, m, d, False))


def qknorm_attention() -> Pair:
    """Queries and keys divided by their norms inside the loop, online softmax."""
    n, m, d, e = 3, 5, 3, 2
    i, j, dd, ee = Axis("i", n), Axis("j", m), Axis("d", d), Axis("e", e)

    def normal(x: Node, axis: Axis) -> Node:
        return mul(x, op("rsqrt", div(total(square(x), axis), float(d))))

    scores = total(mul(normal(t("q", i, dd), dd), normal(t("k", j, dd), dd)), dd)
    p = exp(sub(scores, red("max", scores, j)))
    value = total(mul(div(p, total(p, j)), t("v", j, ee)), j)
    raw = total(mul(t("q", i, dd), t("k", j, dd)), dd)
    scale = [
        op("rsqrt", div(total(square(x), dd), float(d))) for x in (t("q", i, dd), t("k", j, dd))
    ]
    s = mul(raw, scale[0], scale[1])
    top, low, high = g.softmax_accumulators(s, (i,), t("v", j, ee), (i, ee), g.record(F))
    kernel = Kernel(
        "qknorm_attention",
        (GridAxis(i, "T_i"),),
        (Loop(j, "T_j", (top, low, high)),),
        (out(div(high.carried(), low.carried()), i, ee),),
    )
    return _pair("qknorm_attention", (kernel,), out(value, i, ee), T_i=2, T_j=2)


def logsumexp() -> Pair:
    n, m, d = 4, 5, 2
    i, j, dd = Axis("i", n), Axis("j", m), Axis("d", d)
    gap = sub(t("x", i, dd), t("y", j, dd))
    s = mul(sub(t("g", j), total(square(gap), dd)), 2.0)
    top = red("max", s, j)
    value = mul(add(op("log", total(exp(sub(s, top)), j)), top), -0.5)
    return pair(g.logsumexp(n, m, d, F).tiles(T_i=3, T_j=2), value)


def split_k() -> Pair:
    m, k, n = 3, 11, 4
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    value = total(mul(t("x", i, kk), t("w", kk, j)), kk)
    return pair(g.split_k(m, k, n, 2, F).tiles(T_i=2, T_j=2, T_k=2), value)


def kmeans() -> Pair:
    n, c, d = 4, 5, 3
    i, j, dd = Axis("i", n), Axis("j", c), Axis("d", d)
    cross = total(mul(t("x", i, dd), t("c", j, dd)), dd)
    distance = sub(total(square(t("c", j, dd)), dd), mul(2.0, cross))
    return pair(g.kmeans(n, c, d, F).tiles(T_i=2, T_j=2), red("argmin", distance, j))


def inner_loop() -> Pair:
    n, m, d, e = 3, 5, 4, 2
    i, j, dd, ee = Axis("i", n), Axis("j", m), Axis("d", d), Axis("e", e)
    s = mul(total(mul(t("q", i, dd), t("k", j, dd)), dd), 0.125)
    p = exp(sub(s, red("max", s, j)))
    value = div(total(mul(p, t("v", j, ee)), j), total(p, j))
    return pair(g.inner_loop(n, m, d, e, F).tiles(T_i=2, T_j=2, T_d=3), value)


def rbf() -> Pair:
    n, m, d, e = 3, 5, 2, 2
    i, j, dd, ee = Axis("i", n), Axis("j", m), Axis("d", d), Axis("e", e)
    distance = total(square(sub(t("x", i, dd), t("y", j, dd))), dd)
    value = total(mul(exp(mul(distance, -0.5)), t("v", j, ee)), j)
    return pair(g.rbf(n, m, d, e, F).tiles(T_i=2, T_j=2), value)


def rmsnorm_mlp(form: str = "pulled") -> Pair:
    """RMSNorm, two products and their elementwise product, in one of the reference's forms."""
    m, k, n = 3, 5, 4
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    x = t("x", i, kk)
    r = op("sqrt", div(total(square(x), kk), float(k)))
    first, second = (total(mul(div(x, r), t(w, kk, j)), kk) for w in ("a", "b"))
    ss = Accumulator("ss", "sum", square(x), (i,))
    xa = Accumulator("xa", "sum", mul(x, t("a", kk, j)), (i, j))
    xb = Accumulator("xb", "sum", mul(x, t("b", kk, j)), (i, j))
    rr = op("sqrt", div(ss.carried(), float(k)))
    both = mul(xa.carried(), xb.carried())
    value = {
        "square": div(both, mul(rr, rr)),
        "each": mul(div(xa.carried(), rr), div(xb.carried(), rr)),
        "twice": div(div(both, rr), rr),
        "pulled": div(both, div(ss.carried(), float(k))),
    }[form]
    kernel = Kernel(
        "rmsnorm_mlp",
        (GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", (ss, xa, xb)),),
        (out(value, i, j),),
    )
    return _pair("rmsnorm_mlp", (kernel,), out(mul(first, second), i, j), T_i=2, T_j=3, T_k=2)


def softmax_two_loops() -> Pair:
    """Maximum and sum in one loop, the result stored step by step in a second one."""
    n, m = 3, 7
    i, j = Axis("i", n), Axis("j", m)
    x = t("x", i, j)
    top, low = g.softmax_accumulators(x, (i,), None, (), g.record(F))
    value = div(exp(sub(x, top.carried())), low.carried())
    loops = (Loop(j, "T_j", (top, low)), Loop(j, "T_j", (), (out(value, i, j),)))
    kernel = Kernel("softmax", (GridAxis(i, "T_i"),), loops, ())
    p = exp(sub(x, red("max", x, j)))
    return _pair("softmax", (kernel,), out(div(p, total(p, j)), i, j), T_i=2, T_j=3)


def two_kernels() -> Pair:
    """A hidden layer handed on in memory, then a reduction of it."""
    m, k, n = 3, 4, 5
    i, j, kk = Axis("i", m), Axis("j", n), Axis("k", k)
    h = op("max", total(mul(t("x", i, kk), t("w", kk, j)), kk), 0.0)
    hidden = Tensor("h", (m, n), F)
    acc = Accumulator("acc", "sum", mul(t("x", i, kk), t("w", kk, j)), (i, j))
    first = Kernel(
        "hidden",
        (GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", (acc,)),),
        (Store(hidden, (at(i), at(j)), op("max", acc.carried(), 0.0)),),
    )
    row = Accumulator("row", "sum", square(Load(hidden, (at(i), at(j)))), (i,))
    second = Kernel(
        "norm", (GridAxis(i, "T_i"),), (Loop(j, "T_j", (row,)),), (out(row.carried(), i),)
    )
    return _pair("two_kernels", (first, second), out(total(square(h), j), i), T_i=2, T_j=3, T_k=3)


def reductions() -> Pair:
    n, m = 3, 5
    i, j = Axis("i", n), Axis("j", m)
    x, c = t("x", i, j), t("c", i, j, dtype="int32")
    zero, one, three = (g.Const(v, "int32") for v in (0, 1, 3))
    positive = op("gt", c, zero)
    values = (
        red("min", x, j),
        red("any", positive, j),
        red("prod", add(mul(x, 0.01), 1.0), j),
        red("max", op("add", c, three), j),
        red("all", op("or", positive, op("lt", c, one)), j),
        Reduce("argmax", (j,), x, index_sort="int32"),
    )
    return pair(g.reductions(n, m, F).tiles(T_i=2, T_j=2), *values)


def masked_products() -> Pair:
    """Triangular and banded products: masks on one factor, in a loop."""
    n = 6
    i, j, kk = Axis("i", n), Axis("j", 3), Axis("k", n)
    x, w = t("x", i, kk), t("w", kk, j)
    low = op("where", op("ge", Iota(i), Iota(kk)), x, 0.0)
    near = op("le", op("sub", Iota(i), Iota(kk)), g.Const(1, "int32"))
    band = op("where", op("and", near, op("ge", Iota(i), Iota(kk))), x, 0.0)
    accumulators = (
        Accumulator("low", "sum", mul(low, w), (i, j)),
        Accumulator("band", "sum", mul(band, w), (i, j)),
    )
    kernel = Kernel(
        "masked",
        (GridAxis(i, "T_i"), GridAxis(j, "T_j")),
        (Loop(kk, "T_k", accumulators),),
        tuple(out(a.carried(), i, j, name=a.name) for a in accumulators),
    )
    stores = (
        out(total(mul(low, w), kk), i, j, name="low"),
        out(total(mul(band, w), kk), i, j, name="band"),
    )
    return _pair("masked", (kernel,), *stores, T_i=2, T_j=2, T_k=4)


def window() -> Pair:
    """A padded window of three elements: guards with a fill that is not neutral."""
    n, m = 6, 3
    i, j = Axis("i", n), Axis("j", m)
    x = Tensor("x", (n,), F)
    where = affine([(i, 1), (j, 1)], -1)
    value = mul(Load(x, (where,), (Within(where, 0, n),), g.Const(0.5)), t("w", j))
    acc = Accumulator("acc", "sum", value, (i,))
    kernel = Kernel(
        "window", (GridAxis(i, "T_i"),), (Loop(j, "T_j", (acc,)),), (out(acc.carried(), i),)
    )
    return _pair("window", (kernel,), out(total(value, j), i), T_i=2, T_j=2)


def with_tiles(one: Pair, **tiles: int) -> Pair:
    return replace(one, sizes={**one.sizes, **tiles})


def all_pairs() -> list[Pair]:
    """Every pair here."""
    return [
        matmul(),
        lora(),
        gatedmlp(),
        rmsnorm_linear(),
        layernorm(),
        attention(True),
        attention(False),
        attention_split(),
        qknorm_attention(),
        logsumexp(),
        split_k(),
        kmeans(),
        inner_loop(),
        rbf(),
        *(rmsnorm_mlp(form) for form in ("square", "each", "twice", "pulled")),
        softmax_two_loops(),
        two_kernels(),
        reductions(),
        masked_products(),
        window(),
    ]


def square_pairs() -> list[Pair]:
    """Pairs whose axes have one size, so that axes can be mistaken for each other."""
    return [
        matmul(4, 4, 4),
        lora(4, 4, 4, 4),
        gatedmlp(4, 4, 4),
        rmsnorm_linear(4, 4, 4),
        attention(True, 4, 4, 4, 4),
    ]
