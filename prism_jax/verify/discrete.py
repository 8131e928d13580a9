"""Outputs that are not real: indices, counts, booleans, integers.

In: an integer or boolean output of the program, sampled, from the oracle, the reference and the
  candidate. Out: a `Verdict`. Rules (design, section 8). An index (argmax) must name an element
  whose oracle value is within the error bound of the best. Any other value must be the oracle's or
  the reference's, except that it may differ by as many as there are comparisons (or roundings)
  below it that the oracle decides by less than the error margin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import FLOATS, REAL, Axis, Const, Node, Pointwise, Reduce, Store, Tensor, at
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program, walk
from prism_jax.verify.measure import ULPS
from prism_jax.verify.sample import Sample

Array: TypeAlias = Any


@dataclass(frozen=True)
class Verdict:
    """The outcome for one output of one draw; `ratio` above 1 comes with a reason."""

    counts: bool
    ratio: float = 0.0
    error: float = 0.0
    reference_error: float = 0.0
    slack: float = 0.0
    reason: str = ""


def compare_integers(
    program: Program,
    inputs: Mapping[str, Array],
    output: int,
    sample: Sample,
    o: Array,
    r: Array,
    c: Array,
    accuracy: float,
) -> Verdict:
    """Judges one output that is not real."""
    counts = o.size > 0
    wrong = (c != r) & (c != o)
    if not wrong.any():
        return Verdict(counts)
    where = np.flatnonzero(wrong)[:64]
    points = sample.points(where)
    picked = [np.asarray(x).reshape(-1)[where] for x in (o, r, c)]
    store = program.outputs[output]
    chosen = _index_reduce(store.value)
    if chosen is not None:
        return _indices(program, inputs, store, chosen, points, picked, accuracy)
    return _counts(program, inputs, store, points, picked, accuracy)


def _index_reduce(node: Node) -> Reduce | None:
    while (
        isinstance(node, Pointwise)
        and node.op == "cast"
        and node.args[0].sort not in (REAL, "bool")
    ):
        node = node.args[0]
    if isinstance(node, Reduce) and node.monoid in ("argmax", "argmin") and node.body.sort == REAL:
        return node
    return None


def _indices(
    program: Program,
    inputs: Mapping[str, Array],
    store: Store,
    node: Reduce,
    points: Array,
    picked: list[Array],
    accuracy: float,
) -> Verdict:
    axis = node.axes[0]
    size = int(axis.size)
    o, r, c = (x.astype(np.int64) for x in picked)
    if ((c < 0) | (c >= size)).any():
        return Verdict(
            True,
            float("inf"),
            reason=f"index {c[(c < 0) | (c >= size)][0]} is outside 0..{size - 1}",
        )
    r = np.clip(r, 0, size - 1)
    tensor = Tensor("body", (*store.tensor.shape, axis.size), "float64")
    body = Program(
        "body",
        program.inputs,
        (Store(tensor, (*store.index, at(axis)), node.body),),
        program.compute,
    )

    def value(place: Array) -> Array:
        return evaluate(body, inputs, [np.concatenate([points, place[:, None]], 1)])[0]

    best, of_r, of_c = value(o), value(r), value(c)
    with np.errstate(all="ignore"):
        gap, gap_r = np.abs(best - of_c), np.abs(best - of_r)
        slack = accuracy * np.where(np.isfinite(gap_r), gap_r, 0) + ULPS * _eps(program) * np.abs(
            best
        )
        ratio = np.where(gap <= slack, 0.0, gap / np.maximum(slack, 1e-300))
    ratio = np.where(
        np.isnan(gap), np.inf, ratio
    )  # the best is NaN or infinite: only the reference's choice is right
    n = int(ratio.argmax())
    reason = ""
    if ratio[n] > 1:
        reason = f"index {c[n]} has value {of_c[n]:.6g}, the best is {best[n]:.6g} at {o[n]}"
    return Verdict(True, float(ratio[n]), float(gap[n]), float(gap_r[n]), float(slack[n]), reason)


def _counts(
    program: Program,
    inputs: Mapping[str, Array],
    store: Store,
    points: Array,
    picked: list[Array],
    accuracy: float,
) -> Verdict:
    o, r, c = (x.astype(np.float64) for x in picked)
    near = np.zeros(len(points))
    margin = accuracy * ULPS * _eps(program)
    for test in _close_calls(store, margin):
        named = Program(
            "near", program.inputs, (Store(store.tensor, store.index, test),), program.compute
        )
        near = near + evaluate(named, inputs, [points])[0]
    difference = np.abs(c - o)
    allowed = np.maximum(near, np.abs(r - o) * accuracy) if near.any() else near
    worst = int((difference - allowed).argmax())
    if difference[worst] <= allowed[worst]:
        return Verdict(
            True, 1.0, float(difference[worst]), float(np.abs(r - o)[worst]), float(allowed[worst])
        )
    reason = (
        f"{picked[2][worst]} where the oracle has {picked[0][worst]} "
        f"and only {near[worst]:g} comparisons are close"
    )
    ratio = difference[worst] / max(allowed[worst], 0.5)
    return Verdict(
        True,
        float(ratio),
        float(difference[worst]),
        float(np.abs(r - o)[worst]),
        float(allowed[worst]),
        reason,
    )


def _close_calls(store: Store, margin: float) -> list[Node]:
    """Per comparison or rounding of reals below an output: how many of them are decided by less
    than the margin.
    """
    outer = {a for index in store.index for a in index.axes_free}
    found: list[Node] = []
    for node in walk([store.value]):
        test = _close(node, margin)
        if test is None:
            continue
        inner: tuple[Axis, ...] = tuple(a for a in test.axes_free if a not in outer)
        count: Node = Pointwise("cast", (test,), "int32")
        found.append(Reduce("sum", inner, count) if inner else count)
    return found


def _close(node: Node, margin: float) -> Node | None:
    if not isinstance(node, Pointwise) or not node.args or node.args[0].sort != REAL:
        return None
    if node.op in ("eq", "ne", "lt", "le", "gt", "ge"):
        a, b = node.args
        size = Pointwise("max", (Pointwise("abs", (a,)), Pointwise("abs", (b,))))
        gap = Pointwise("abs", (Pointwise("sub", (a, b)),))
    elif node.op in ("floor", "ceil") or (node.op == "cast" and node.sort != REAL):
        x = node.args[0]
        size = Pointwise("max", (Pointwise("abs", (x,)), Const(1.0)))
        nearest = Pointwise("floor", (Pointwise("add", (x, Const(0.5))),))
        gap = Pointwise("abs", (Pointwise("sub", (x, nearest)),))
    else:
        return None
    return Pointwise("le", (gap, Pointwise("mul", (Const(margin), size))))


def _eps(program: Program) -> float:
    """The unit of the narrowest real input: what decides a comparison is rounded to it."""
    names = [t.dtype for t in program.inputs if t.dtype in FLOATS] or [program.compute]
    return max(float(ml_dtypes.finfo(numpy_dtype(n)).eps) for n in names)
