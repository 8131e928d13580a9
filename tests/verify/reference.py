"""The proofs of the reference's section 5.4, and what it lacks: the same with a running maximum.

Each is a program beside the sGraph of that row: which axes are split over the grid, which loop.
The published rules prove all but the last form of RMSNorm-MLP; none of theirs has a maximum.
"""

from __future__ import annotations

from collections.abc import Callable

from prism_jax.ir.nodes import Axis, Node
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop
from tests.emit import graphs as g
from tests.verify import pairs as p
from tests.verify.build import add, div, exp, mul, op, out, red, square, sub, t, total
from tests.verify.pairs import Pair

B, I, J, D, E = (  # noqa: E741
    Axis("b", 2), Axis("i", 4), Axis("j", 5), Axis("d", 3), Axis("e", 2)
)  # fmt: skip


def _normalised(x: Node) -> Node:
    return div(x, op("sqrt", div(total(square(x), D), 3.0)))


def attention(name: str, grid: tuple[Axis, ...], batch: bool, norm: bool, running: bool) -> Pair:
    """Attention over `grid`, keys in a loop; `running`: with the maximum of what was seen."""
    axes = (B,) if batch else ()
    q, k, v = t("q", *axes, I, D), t("k", *axes, J, D), t("v", *axes, J, E)
    scores = total(mul(_normalised(q) if norm else q, k), D)
    if running:
        p_ = exp(sub(scores, red("max", scores, J)))
        value = total(mul(div(p_, total(p_, J)), v), J)
        accumulators = g.softmax_accumulators(
            scores, (*axes, I), v, (*axes, I, E), g.record("float32")
        )
    else:
        value = div(total(mul(exp(scores), v), J), total(exp(scores), J))
        accumulators = (
            Accumulator("l", "sum", exp(scores), (*axes, I)),
            Accumulator("o", "sum", mul(exp(scores), v), (*axes, I, E)),
        )
    result = div(accumulators[-1].carried(), accumulators[-2].carried())
    kernel = Kernel(
        "attention",
        tuple(GridAxis(a, f"T_{a}") for a in grid),
        (Loop(J, "T_j", accumulators),),
        (out(result, *axes, I, E),),
    )
    sizes = {f"T_{a}": 2 for a in (*grid, J)}
    return p._pair(name, (kernel,), out(value, *axes, I, E), **sizes)


def log_sum_exp() -> Pair:
    """log sum exp with its running maximum, one row in a block."""
    x = t("x", I, J)
    top, low = g.softmax_accumulators(x, (I,), None, (), g.record("float32"))
    kernel = Kernel(
        "lse", (GridAxis(I, "T_i"),), (Loop(J, "T_j", (top, low)),),
        (out(add(op("log", low.carried()), top.carried()), I),),
    )  # fmt: skip
    m = red("max", x, J)
    value = add(op("log", total(exp(sub(x, m)), J)), m)
    return p._pair("lse", (kernel,), out(value, I), T_i=2, T_j=2)


def _rows(running: bool) -> dict[str, Callable[[], Pair]]:
    how = ", running maximum" if running else ""

    def make(
        name: str, grid: tuple[Axis, ...], batch: bool, norm: bool
    ) -> tuple[str, Callable[[], Pair]]:
        return name + how, lambda: attention(name + how, grid, batch, norm, running)

    return dict(
        [
            make("attention, grid rows", (I,), False, False),
            make("attention, grid batch x rows", (B, I), True, False),
            make("attention, grid batch x rows x columns", (B, I, E), True, False),
            make("attention, queries RMS-normalised", (B, I), True, True),
        ]
    )


PROOFS: dict[str, Callable[[], Pair]] = {
    **_rows(running=False),
    "RMSNorm + linear, grid columns": p.rmsnorm_linear,
    "gated MLP, grid columns": p.gatedmlp,
    "RMSNorm-MLP, (XA XB) / (r r)": lambda: p.rmsnorm_mlp("square"),
    "RMSNorm-MLP, (XA / r) (XB / r)": lambda: p.rmsnorm_mlp("each"),
    "RMSNorm-MLP, ((XA XB) / r) / r, which the published rules miss": lambda: p.rmsnorm_mlp(
        "twice"
    ),
    **_rows(running=True),
    "causal attention, running maximum": lambda: p.attention(True),
    "attention over shares, running maximum": p.attention_split,
    "QK-norm attention, running maximum": p.qknorm_attention,
    "log-sum-exp of distances, running maximum": p.logsumexp,
    "log-sum-exp, running maximum": log_sum_exp,
}
