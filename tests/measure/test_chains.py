"""Chains of two lengths: what they compute, what they share, and the two kernels around them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from prism_jax.bench import suites
from prism_jax.emit.binary import pointer_type
from prism_jax.emit.compile import compile_kernel
from prism_jax.emit.interpret import interpret
from prism_jax.measure import chains
from prism_jax.measure.chains import Chain, NoChainError


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X, W = draw(8, 32), draw(32, 64, seed=1)


def test_every_call_computes_the_function() -> None:
    seen: list[Any] = []

    def function(x: jax.Array, tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
        seen.append(x)
        return {"product": x @ tree["w"], "count": jnp.int32(len(seen)), "none": x[:0]}

    chain = Chain.of(lambda x, tree: x @ tree["w"], (X, {"w": W}), (2, 5), 2**30)
    assert [position for position, _ in chain.stacks] == [0]
    assert (chain.short, chain.long) == (2, 5)
    found = np.asarray(chain.run(function, 3)())
    assert len(seen) == 3
    wanted = float((X @ W)[0, 0])
    np.testing.assert_allclose(found.reshape(3, 2), [[n, wanted] for n in (1, 2, 3)], rtol=1e-6)


def test_pieces_differ_where_the_stack_does() -> None:
    """Each call reads its own piece: the stack's rows are told apart."""
    chain = Chain.of(lambda x: 2.0 * x, (X,), (1, 4), 2**30)
    rows = jnp.stack([X + n for n in range(4)])
    other = Chain(chain.treedef, chain.shared, ((0, rows),), 1, 4)
    found = other.run(lambda x: 2.0 * x, 4)()
    np.testing.assert_allclose(found, 2 * (X[0, 0] + np.arange(4)), rtol=1e-6)


@pytest.mark.parametrize("suite", ["mirage", "prism", "flash", "algebra"])
def test_no_call_of_a_suite_shares_a_computation(suite: str) -> None:
    """The arguments that stay shared alone reach no computation of the row."""
    done: set[str] = set()
    for row in suites.rows(suite):
        if row.function is None or row.name in done:
            continue
        done.add(row.name)
        arrays = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in row.operands]
        # No memory behind them: every stride is zero.
        empty = [np.broadcast_to(np.zeros((), a.dtype), a.shape) for a in arrays]
        cut = chains.own(row.function, empty)
        needs: set[frozenset[int]] = set()
        closed = jax.make_jaxpr(row.function)(*arrays)
        chains._depend(closed, [frozenset([n]) for n in range(len(arrays))], needs)
        assert cut, row.key
        assert all(need & set(cut) for need in needs if need), row.key
        if row.name in ("gqa", "lora", "rmsnorm", "gatedmlp", "causal"):
            assert cut == (0,), row.key
        if row.name == "qknorm":
            assert cut == (0, 1)  # both are normalised, each alone


def test_time_is_a_difference() -> None:
    def slow(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 300, lambda _, y: jnp.sin(y @ y), x)

    x = draw(48, 48) / 48
    chain = Chain.of(slow, (x,), (2, 6), 2**30)
    many = chain.time_us(slow, 5)
    less = chain.time_us(lambda x: jax.lax.fori_loop(0, 30, lambda _, y: jnp.sin(y @ y), x), 5)
    assert many > 3.0 * less
    assert chains.per_call(3.0, 11.0, 4) == 2.0


def test_the_gain_is_of_differences() -> None:
    noise = np.random.default_rng(0).normal(scale=0.5, size=(40, 4))
    ratio, low, high = chains.gain_of(np.array([50.0, 90.0, 70.0, 90.0]) + noise)
    assert low < ratio < high
    assert low < 2.0 < high
    assert high - low < 0.5
    assert chains.gain_of(np.array([[1.0, 2.0, 3.0, 3.0]] * 9))[2] == np.inf


def test_what_cannot_be_chained_says_why() -> None:
    with pytest.raises(NoChainError, match="more memory"):
        Chain.of(lambda x: x + 1.0, (X,), (2, 4), 5 * X.nbytes)
    with pytest.raises(NoChainError, match="no kernel can cut"):
        Chain.of(lambda: jnp.zeros(4), (), (2, 4), 2**30)
    with pytest.raises(NoChainError, match="result's type"):
        Chain.of(lambda x: x + 1j, (X,), (2, 4), 2**30)
    many = Chain.of(lambda x: [x + n for n in range(150)], (X,), (2, 40), 2**30)
    assert (many.short, many.long) == (1, 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int32", "bool", "float64"])
def test_the_kernels_cut_and_read(dtype: str) -> None:
    """In the interpreter, at a size that no block divides; every element of every piece."""
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    size, count = chains.BLOCK + 7, 3
    stack = (np.arange(count * size).reshape(count, size) % 251).astype(kind)
    source = chains.split_source(pointer_type(kind), count, size)
    pieces = interpret(source, (2,), [stack], [((size,), kind)] * count)
    np.testing.assert_array_equal(np.stack(pieces), stack)
    gather = chains.gather_source([pointer_type(kind)] * count)
    (found,) = interpret(gather, (1,), list(pieces), [((count,), np.float32)])
    np.testing.assert_array_equal(found, stack[:, 0].astype(np.float32))


def test_on_a_gpu_both_kernels_are_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered for CUDA without one: a call that cuts, the function's work, a call that reads."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chains, "_capability", lambda: 90)
    chain = Chain.of(lambda x, w: x @ w, (X, W), (8, 40), 2**30)

    def program(stack: jax.Array, w: jax.Array) -> jax.Array:
        pieces = chains.cut(stack, chain.long)
        return chains.gathered([piece @ w for piece in pieces])

    traced = jax.jit(program).trace(chain.stacks[0][1], W)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("triton_kernel_call_ffi") == 2
    assert text.count("stablehlo.dot_general") == 40


def test_many_pieces_compile() -> None:
    """As many pointers as there may be, for the device that has the least room for parameters."""
    source = chains.split_source("*fp16", chains.MOST_POINTERS, 64)
    assert len(compile_kernel(source, 80).parameters) == chains.MOST_POINTERS + 1
