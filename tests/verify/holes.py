"""The known holes of published axiom sets, as sGraphs that must be rejected (reference, 5.6)."""

from __future__ import annotations

from prism_jax.ir.nodes import Axis
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Accumulator, GridAxis, Kernel, Loop, SGraph
from tests.verify.build import div, mul, op, out, program, square, t, total

M = Axis("i", 6)
N = Axis("j", 6)
K = Axis("k", 6)


def _graph(whole: Program, *kernels: Kernel) -> SGraph:
    return SGraph(whole.name, whole.inputs, kernels, tuple(s.tensor for s in whole.outputs))


def full_division() -> tuple[Program, SGraph]:
    """(X / Y) W = (X W) / Y holds for a Y with one column, not for a full one."""
    x, w = t("x", M, K), t("w", K, N)
    whole = program("full_division", out(total(mul(div(x, t("y", M, K)), w), K), M, N))
    acc = Accumulator("xw", "sum", mul(x, w), (M, N))
    kernel = Kernel(
        "full_division",
        (GridAxis(M, "T_i"), GridAxis(N, "T_j")),
        (Loop(K, "T_k", (acc,)),),
        (out(div(acc.carried(), t("y", M, N)), M, N),),
    )
    return whole, _graph(whole, kernel)


def rms_without_mean() -> tuple[Program, SGraph]:
    """The root of a sum of squares in place of the root of their mean."""
    x = t("x", M, K)
    root = op("sqrt", div(total(square(x), K), 6.0))
    whole = program("rms", out(div(x, root), M, K))
    acc = Accumulator("ss", "sum", square(x), (M,))
    kernel = Kernel(
        "rms",
        (GridAxis(M, "T_i"),),
        (Loop(K, "T_k", (acc,)),),
        (out(div(x, op("sqrt", acc.carried())), M, K),),
    )
    return whole, _graph(whole, kernel)


def split_without_combine() -> tuple[Program, SGraph]:
    """A sum whose steps are shared by the blocks of a grid axis, stored as if it were whole."""
    share = Axis("s", 2)
    x, w = t("x", M, K), t("w", K, N)
    whole = program("split", out(total(mul(x, w), K), M, N))
    acc = Accumulator("xw", "sum", mul(x, w), (M, N))
    kernel = Kernel(
        "split",
        (GridAxis(share, 1), GridAxis(M, "T_i"), GridAxis(N, "T_j")),
        (Loop(K, "T_k", (acc,), split=share),),
        (out(acc.carried(), M, N),),
    )
    return whole, _graph(whole, kernel)


def unused_loop() -> tuple[Program, SGraph]:
    """A loop that no input uses adds the same value once a step."""
    steps = Axis("f", 4)
    whole = program("unused", out(t("x", M, N), M, N))
    acc = Accumulator("again", "sum", t("x", M, N), (M, N))
    kernel = Kernel(
        "unused",
        (GridAxis(M, "T_i"), GridAxis(N, "T_j")),
        (Loop(steps, "T_f", (acc,)),),
        (out(acc.carried(), M, N),),
    )
    return whole, _graph(whole, kernel)


def replicated_store() -> tuple[Program, SGraph]:
    """replicate(t) = t: every block of an axis that the store lacks writes the same place."""
    whole = program("replicated", out(total(t("x", M, K), K), M))
    acc = Accumulator("row", "sum", t("x", M, K), (M,))
    kernel = Kernel(
        "replicated",
        (GridAxis(M, "T_i"), GridAxis(N, "T_j")),
        (Loop(K, "T_k", (acc,)),),
        (out(acc.carried(), M),),
    )
    return whole, _graph(whole, kernel)


HOLES = (full_division, rms_without_mean, split_without_combine, unused_loop, replicated_store)
