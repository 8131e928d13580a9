"""Plain jnp: every program that the hand-written sGraphs compute, without its blocking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from prism_jax.emit import jnp as emit_jnp
from prism_jax.emit import lax_blocks
from prism_jax.ir.evaluate import evaluate
from prism_jax.ir.nodes import (
    Axis,
    Carried,
    Load,
    Node,
    Pointwise,
    Reduce,
    Store,
    Tensor,
    at,
)
from prism_jax.ir.ops import numpy_dtype
from prism_jax.ir.program import Program, walk
from prism_jax.ir.rewrite import replace as substitute
from prism_jax.ir.sgraph import GridAxis, Kernel, LibraryCall, SGraph

from .graphs import Case, cases, load, mul, op, record, store
from .harness import agree, expected, inputs


def unblocked(sgraph: SGraph) -> SGraph:
    """Every kernel as a library call: an accumulator is the reduction of its summand at the final
    values.
    """

    def call(kernel: Kernel) -> LibraryCall:
        totals: dict[tuple[str, str], Node] = {}

        def plain(node: Node) -> Node:
            found: dict[Node, Node] = {
                n: totals[n.accumulator, "final"] for n in walk([node]) if isinstance(n, Carried)
            }
            return substitute(node, found)

        for loop in (
            reversed(kernel.all_loops) if any(x.inner for x in kernel.loops) else kernel.loops
        ):
            for a in loop.accumulators:
                total = Reduce(a.monoid, (loop.axis,), plain(a.summand), a.precision, a.index_sort)
                totals[a.name, "final"] = total
        stores = tuple(replace(s, value=plain(s.value)) for s in kernel.all_stores)
        return LibraryCall(kernel.name, "xla", stores)

    nodes = tuple(call(n) if isinstance(n, Kernel) else n for n in sgraph.nodes)
    return replace(sgraph, nodes=nodes)


def run(sgraph: SGraph, given: dict[str, Any], unroll: int = 0) -> tuple[Any, ...]:
    tensors = dict(given)
    for node in sgraph.nodes:
        assert isinstance(node, LibraryCall)
        function = emit_jnp.emit_call(node, sgraph.compute, unroll)
        results = jax.jit(function.call)(*(tensors[t.name] for t in function.operands))
        tensors |= {t.name: r for t, r in zip(function.results, results, strict=True)}
    return tuple(tensors[t.name] for t in sgraph.outputs)


def odd(dtype: str) -> list[Case]:
    """Cases without a split loop: partial results have no meaning without blocks."""

    def split(case: Case) -> bool:
        return any(loop.split for kernel in case.sgraph.kernels for loop in kernel.all_loops)

    return [case for case in cases(dtype, big=False) if not split(case)]


ODD = odd("float32")
NAMES = [f"{n}-{c.name}" for n, c in enumerate(ODD)]


@pytest.mark.parametrize("unroll", [0, 8])
@pytest.mark.parametrize("number", range(len(ODD)), ids=NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values(number: int, dtype: str, unroll: int) -> None:
    case = odd(dtype)[number]
    given = inputs(case)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found = run(unblocked(case.sgraph), given, unroll)
    agree(case, found, expected(case, given), dtype)


def test_three_factors_are_multiplied_in_the_cheapest_order() -> None:
    i, j, k, r = Axis("i", 64), Axis("j", 64), Axis("k", 64), Axis("r", 2)
    x, a, b = (
        Tensor("x", (64, 64), "float32"),
        Tensor("a", (64, 2), "float32"),
        Tensor("b", (2, 64), "float32"),
    )
    y = Tensor("y", (64, 64), "float32")
    chain = Reduce(
        "sum", (k, r), mul(load(x, i, k), load(a, k, r), load(b, r, j)), record("float32")
    )
    program = Program("chain", (x, a, b), (store(y, (i, j), chain),))
    function = emit_jnp.emit(program)
    jaxpr = jax.make_jaxpr(function.call)(
        *(jax.ShapeDtypeStruct(t.shape, np.float32) for t in (x, a, b))
    )
    products = [e.outvars[0].aval.shape for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert products == [(64, 2), (64, 64)]


def test_a_product_is_never_built() -> None:
    """The distance of 4096 points to 4096: largest intermediate 4096 x 4096, not 4096 x 4096 x
    64.
    """
    n, d = 4096, 64
    i, j, k = Axis("i", n), Axis("j", n), Axis("k", d)
    x, y, o = (
        Tensor(name, shape, "float32")
        for name, shape in (("x", (n, d)), ("y", (n, d)), ("o", (n, n)))
    )
    cross = Reduce("sum", (k,), mul(load(x, i, k), load(y, j, k)))
    program = Program("cross", (x, y), (store(o, (i, j), op("exp", cross)),))
    jaxpr = jax.make_jaxpr(emit_jnp.emit(program).call)(
        np.zeros((n, d), "f4"), np.zeros((n, d), "f4")
    )
    sizes = [v.aval.size for e in jaxpr.eqns for v in e.outvars]
    assert max(sizes) == n * n


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_an_array_may_be_read_along_two_axes(dtype: str) -> None:
    """Widened once, it still has the axes of each place: x[i] - 2 x[j] of a vector, x + x.T."""
    i, j = Axis("i", 5), Axis("j", 5)
    x, w = Tensor("x", (5,), dtype), Tensor("w", (5, 5), dtype)
    difference = Pointwise("sub", (Load(x, (at(i),)), mul(2.0, Load(x, (at(j),)))))
    both = Pointwise("add", (Load(w, (at(i), at(j))), Load(w, (at(j), at(i)))))
    stores = tuple(
        Store(Tensor(name, (5, 5), "float32"), (at(i), at(j)), value)
        for name, value in (("d", difference), ("s", both))
    )
    program = Program("twice", (x, w), stores)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=5), "w": rng.normal(size=(5, 5))}
    given = {n: a.astype(numpy_dtype(dtype)) for n, a in arrays.items()}
    found = jax.jit(emit_jnp.emit(program).call)(given["x"], given["w"])
    blocked: list[Any] = []
    for n, item in enumerate(stores):
        kernel = Kernel(f"k{n}", (GridAxis(i, 2), GridAxis(j, 5)), (), (item,))
        function = lax_blocks.emit_kernel(kernel, "float32")
        blocked += jax.jit(function.call)(*(given[t.name] for t in function.operands))
    for got, tiled, want in zip(found, blocked, evaluate(program, given), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
        np.testing.assert_allclose(tiled, want, rtol=1e-5)
