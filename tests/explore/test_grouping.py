"""Which tensors one kernel writes: stores side by side, and those that need each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax import device
from prism_jax.explore import Form, search
from prism_jax.explore.grouping import groups, joined
from prism_jax.explore.result import SearchResult
from prism_jax.explore.targets import Names, reductions, targets
from prism_jax.extract import lift
from prism_jax.ir.check import check_sgraph
from prism_jax.ir.evaluate import evaluate, evaluate_sgraph
from prism_jax.ir.nodes import Carried
from prism_jax.ir.program import Program
from prism_jax.ir.sgraph import Kernel, SGraph

H100 = device.row("H100")


def column_sums(x: Any) -> Any:
    """Of a softmax: its maximum and sum of rows are wanted for every column."""
    return jnp.sum(jax.nn.softmax(x, -1), 0)


def attention_gradient(q: Any, k: Any, v: Any) -> Any:
    def attention(q: Any, k: Any, v: Any) -> Any:
        return jnp.sum((jax.nn.softmax(q @ k.T, -1) @ v) ** 2)

    return jax.grad(attention, (0, 1, 2))(q, k, v)


CASES: dict[str, tuple[Callable[..., Any], tuple[tuple[int, int], ...]]] = {
    "column_sums": (column_sums, ((512, 1024),)),
    "attention_gradient": (attention_gradient, ((512, 64), (512, 64), (512, 64))),
}


def lifted(fun: Callable[..., Any], *shapes: tuple[int, ...]) -> Program:
    structs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return lift(jax.make_jaxpr(fun)(*structs), "f")


def found(program: Program) -> SearchResult:
    return search(program, [Form(program)], H100, 60)


def joins(kernel: Kernel) -> bool:
    """Whether a loop's accumulator that others depend on is written beside them."""
    needed = {name for loop in kernel.loops for a in loop.accumulators for name in a.depends}
    values = [store.value for store in kernel.stores]
    written = {n.accumulator for n in values if isinstance(n, Carried)}
    return len(kernel.stores) > 1 and bool(needed & written)


def joined_sgraphs(result: SearchResult) -> list[SGraph]:
    return [c.sgraph for c in result.candidates if any(map(joins, c.sgraph.kernels))]


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_writes_what_its_other_stores_need(name: str) -> None:
    fun, shapes = CASES[name]
    assert joined_sgraphs(found(lifted(fun, *shapes)))


def test_joined_kernels_compute_the_program() -> None:
    rng = np.random.default_rng(0)
    for fun, shapes in ((column_sums, [(7, 9)]), (attention_gradient, [(6, 4), (5, 4), (5, 3)])):
        program = lifted(fun, *shapes)
        inputs = {
            t.name: rng.standard_normal(s) for t, s in zip(program.inputs, shapes, strict=True)
        }
        expected = evaluate(program, inputs)
        names = Names(program.compute)
        keys = reductions(program, names)
        sets = (s for n in range(len(keys)) for s in itertools.combinations(keys, n))
        made = (targets(program, frozenset(s), names) for s in sets)
        assert any(joined(program, m, names) for m in made), "the test has lost its subject"
        for candidate in found(program).candidates:
            check_sgraph(candidate.sgraph)
            sizes = {symbol: int(rng.integers(1, 9)) for symbol in candidate.sgraph.symbols}
            values = evaluate_sgraph(candidate.sgraph, sizes, inputs)
            for value, right in zip(values, expected, strict=True):
                np.testing.assert_allclose(value, right, rtol=1e-9, atol=1e-11)


def test_a_target_waits_for_what_other_kernels_make() -> None:
    """The third sum needs the first and, of another grid, the second: it is made after both, by a
    kernel of its own.
    """

    def fun(x: Any) -> Any:
        rows, columns = jnp.sum(x, 1, keepdims=True), jnp.sum(x, 0, keepdims=True)
        return jnp.sum(jnp.exp(x - rows) * columns, 1), jnp.sum(jnp.exp(x - rows), 0)

    program = lifted(fun, (64, 128))
    names = Names(program.compute)
    rows, columns, *_ = reductions(program, names)
    assert joined(program, targets(program, frozenset({rows, columns}), names), names) is None
    assert joined(program, targets(program, frozenset({rows}), names), names) is not None


@pytest.mark.parametrize("batch", [1, 2])
def test_an_axis_of_one_element_keeps_no_stores_apart(batch: int) -> None:
    """Two products of the same rows are one kernel, with a batch or without."""

    def fun(x: Any, a: Any, b: Any) -> Any:
        return x @ a, x @ b

    program = lifted(fun, (batch, 16, 64), (64, 32), (64, 32))
    names = Names(program.compute)
    [group] = groups(program, targets(program, frozenset(), names), names)
    assert len(group) == 2


def test_what_only_its_own_kernel_needs_is_not_written() -> None:
    """The partition that does not materialise it has the same kernel with one store less."""
    program = lifted(lambda x: jax.nn.logsumexp(x, 1), (64, 128))
    names = Names(program.compute)
    keys = reductions(program, names)
    assert len(keys) == 2
    for n in range(3):
        for chosen in itertools.combinations(keys, n):
            assert joined(program, targets(program, frozenset(chosen), names), names) is None
