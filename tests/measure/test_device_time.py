"""Timing of chains and pairs, on the CPU; what needs a GPU is checked for its refusal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.measure import device_time


def slow(x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 40, lambda _, y: jnp.sin(y @ y), x)


def fast(x: jax.Array) -> jax.Array:
    return jnp.sin(x @ x)


X = jnp.ones((96, 96), jnp.float32) / 96


def test_paired_ratio_finds_the_faster() -> None:
    ratio, (low, high) = device_time.paired_ratio(jax.jit(slow), jax.jit(fast), (X,), rounds=9)
    assert low <= ratio <= high
    assert ratio > 1.0
    ratio, (low, high) = device_time.paired_ratio(jax.jit(fast), jax.jit(slow), (X,), rounds=9)
    assert low <= ratio <= high
    assert ratio < 1.0  # of nine pairs on a busy machine one may be far off, their median is not


def test_chain_calls_once_per_set_in_order() -> None:
    sets = [(jnp.float32(i), {"y": jnp.float32(10 * i)}) for i in range(4)]
    run = device_time.chain(lambda x, tree: (x + tree["y"], x), 4)
    np.testing.assert_array_equal(np.array(run(sets))[:, 0], [0, 11, 22, 33])
    text = run.lower(sets).as_text()  # pyright: ignore[reportFunctionMemberAccess]
    assert text.count("optimization_barrier") == 3
    with pytest.raises(ValueError, match="chain of 4 calls was given 1"):
        run(sets[:1])


def test_chain_time_is_per_call() -> None:
    two = device_time.chain_time(slow, [(X,)] * 2, repetitions=5)
    sets = device_time.operand_sets((X,), 16 * X.nbytes, cold=False)
    assert len(sets) == 8
    many = device_time.chain_time(slow, sets, repetitions=5)
    assert many.spread >= 0.0
    assert many.kernels == ()
    # Equal operands, as in the first, are merged by XLA: it times one call, not two.
    assert 0.2 < many.median_us / two.median_us < 8.0


def test_operand_sets_are_cold_or_warm() -> None:
    cold = device_time.operand_sets((X,), 10 * X.nbytes, cold=True)
    assert len(cold) == 30
    assert len({array.unsafe_buffer_pointer() for (array,) in cold}) == 30
    assert len(device_time.operand_sets((X,), X.nbytes, cold=False)) == 2
    assert len(device_time.operand_sets((X,), 2**40, cold=True)) == 256


def test_profile_statistics() -> None:
    profile = [[("a", 1e-3), ("b", 2e-3)], [("a", 3e-3), ("b", 2e-3)], [("a", 2e-3), ("b", 2e-3)]]
    sample = device_time.from_profile(profile)
    assert sample.median_us == pytest.approx(4.0)
    assert dict(sample.kernels) == pytest.approx({"a": 2.0, "b": 2.0})
    assert sample.spread == pytest.approx(0.125)


def test_device_time_needs_a_gpu() -> None:
    for timer in (device_time.device_time, device_time.measure):
        with pytest.raises(RuntimeError, match="needs a GPU, jax runs on cpu"):
            timer(fast, (X,))
    with pytest.raises(RuntimeError, match="needs a GPU"):
        device_time.chain_device_time(fast, [(X,), (X,)])
