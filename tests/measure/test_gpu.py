"""Measuring on a real GPU: `pytest -m gpu tests/measure/test_gpu.py`. About a minute.

What only a GPU can show: that a kernel which faults or hangs is refused alone and this process goes
on, that times are those of the profile here, and that pairs see what a chain sees.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.emit.binary import KernelSource
from prism_jax.emit.compile import compile_many
from prism_jax.ir.nodes import Tensor
from prism_jax.launch.value import Launch
from prism_jax.measure import chains, device_time
from prism_jax.measure.inputs import random_inputs
from prism_jax.measure.pairs import Pairs
from prism_jax.measure.worker import DeviceWorker

pytestmark = pytest.mark.gpu
if jax.default_backend() != "gpu" or importlib.util.find_spec("triton") is None:
    pytest.skip("needs a GPU and triton", allow_module_level=True)

CAPABILITY = int(str(jax.devices()[0].compute_capability).replace(".", ""))
N = 1 << 22
X, Y, OUT = (Tensor(name, (N,), "float32") for name in "xyo")
BLOCKS = (128, 256, 512, 1024, 2048)
TEXT = """import triton
import triton.language as tl


@triton.jit
def kernel(x_ptr, y_ptr, o_ptr, n: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(x_ptr + i, mask=i < n)
    y = tl.load(y_ptr + i, mask=i < n)
    BODY
"""
GOOD = "tl.store(o_ptr + i, x + y, mask=i < n)"
ILLEGAL = "tl.store(o_ptr + i.to(tl.int64) * 1000003, x + y)"
WRONG = "tl.store(o_ptr + i, x - y, mask=i < n)"
IDLE = "tl.store(o_ptr + i, x + y, mask=i < 0)"
HANG = """while tl.load(x_ptr + n - 1, volatile=True) < 1e30:
        tl.store(o_ptr + i, x + y, mask=i < n)"""


def launches(bodies: list[str]) -> list[Launch]:
    """One launch per body, over the block sizes in turn."""
    sources = [
        KernelSource(
            name="kernel",
            text=TEXT.replace("BODY", body),
            signature=(
                *((f"{name}_ptr", "*fp32") for name in "xyo"),
                ("n", "constexpr"),
                ("block", "constexpr"),
            ),
            constexprs=(("n", N), ("block", BLOCKS[number % len(BLOCKS)])),
            num_warps=2 << (number // len(BLOCKS) % 3),
        )
        for number, body in enumerate(bodies)
    ]
    found: list[Launch] = []
    binaries = compile_many(sources, CAPABILITY, workers=min(16, os.cpu_count() or 2))
    for source, binary in zip(sources, binaries, strict=True):
        assert not isinstance(binary, Exception), binary
        blocks = -(-N // int(str(dict(source.constexprs)["block"])))
        found.append(Launch(binary, (blocks,), (X, Y), (OUT,)))
    return found


@pytest.fixture(scope="module")
def device() -> Iterator[DeviceWorker]:
    device = DeviceWorker()
    device.prepare()
    yield device
    device.close()


def soon() -> float:
    return time.monotonic() + 120.0


def test_times_are_those_of_a_profile_here(device: DeviceWorker) -> None:
    good = launches([GOOD] * 3)
    found = device.kernel_seconds(good, [X, Y], soon())
    arrays = random_inputs([X, Y])
    for launch, seconds in zip(good, found, strict=True):
        here = device_time.device_time(jax.jit(launch.call()), arrays).median_us * 1e-6
        assert isinstance(seconds, float), seconds
        assert 0.6 < seconds / here < 1.6


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        # The driver takes its time over a fault: once in a while it is reported after the limit.
        (ILLEGAL, ("illegal memory access", "did not return in")),
        (HANG, "did not return in"),
        (WRONG, "wrong result"),
        (IDLE, "wrong result"),
    ],
)
def test_one_bad_kernel_among_twenty(
    device: DeviceWorker, body: str, sentence: str | tuple[str, ...]
) -> None:
    bodies = [GOOD] * 20
    bodies[6] = body
    start = time.monotonic()
    found = device.kernel_seconds(launches(bodies), [X, Y], soon())
    print(f"{sentence}: {time.monotonic() - start:.1f} s")
    assert str(found[6]).startswith(sentence), found
    assert all(isinstance(f, float) and f > 0.0 for n, f in enumerate(found) if n != 6), found
    # This process has not noticed.
    assert float(jnp.arange(5.0).sum()) == 10.0
    x, y = random_inputs([X, Y])
    (out,) = jax.jit(launches([GOOD])[0].call())(x, y)
    np.testing.assert_allclose(out, np.asarray(x) + np.asarray(y), rtol=1e-6)


def test_a_warm_worker_is_quick(device: DeviceWorker) -> None:
    good = launches([GOOD] * 16)
    device.kernel_seconds(good[:1], [X, Y], soon())
    start = time.monotonic()
    found = device.kernel_seconds(good, [X, Y], soon())
    seconds = time.monotonic() - start
    print(f"16 kernels in {seconds:.2f} s")
    assert all(isinstance(f, float) for f in found), found
    assert seconds < 5.0


def test_the_worker_keeps_to_its_memory() -> None:
    device = DeviceWorker(memory_bytes=64 << 20)
    try:
        huge = Tensor("x", (1 << 26,), "float32")
        (good,) = launches([GOOD])
        (sentence,) = device.kernel_seconds([good], [huge, Y], soon())
        assert str(sentence).startswith("not measured: needs "), sentence
    finally:
        device.close()


def test_pairs_see_a_difference_and_none() -> None:
    def plain(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        return [x + y]

    def twice(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        return [jax.lax.optimization_barrier(x + y) * y]

    arrays = random_inputs([Tensor(n, (1 << 20,), "float32") for n in "xy"])
    compared = Pairs(twice, arrays)
    compared.against(plain)
    start = time.monotonic()
    better, same = compared.against(plain), compared.against(twice)
    print(f"{better}\n{same}\n{time.monotonic() - start:.1f} s for two")
    assert compared._chain is not None
    assert better.low > 1.1
    assert same.low < 1.05
    assert same.high > 0.95


def test_chains_tell_what_kernels_take() -> None:
    """Equal functions take equal times, and calls cost what their kernels do and little more."""
    (x,) = random_inputs([Tensor("x", (1 << 22,), "float32")])

    def function(x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(x * 2.0) + 1.0

    plain = jax.jit(function)
    kernels = device_time.device_time(plain, (x,)).median_us
    chain = chains.Chain.of(plain, (x,), (8, 40), 2**31)
    first, second = chain.time_us(plain, 20), chain.time_us(plain, 20)
    print(f"kernels {kernels:.1f} us, chains {first:.1f} and {second:.1f} us")
    assert abs(first - second) < 0.1 * first
    assert 0.9 * kernels < first < kernels + 20.0
