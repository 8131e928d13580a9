"""Launches on a real GPU: `pytest -m gpu tests/test_triton_gpu.py`.

What only a GPU can show is that the launch itself is right; the rest is tested elsewhere.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.emit.binary import KernelSource
from prism_jax.emit.compile import compile_kernel
from prism_jax.launch import cuda, jaxtriton, native
from prism_jax.measure import device_time

pytestmark = pytest.mark.gpu
if jax.default_backend() != "gpu" or importlib.util.find_spec("triton") is None:
    pytest.skip("needs a GPU and triton", allow_module_level=True)

DEVICE = jax.devices()[0]
CAPABILITY = int(str(DEVICE.compute_capability).replace(".", ""))
_HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"
BLOCK = 256
BINARY_OP = """def kernel(x_ptr, y_ptr, o_ptr, n: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(x_ptr + i, mask=i < n)
    y = tl.load(y_ptr + i, mask=i < n)
    tl.store(o_ptr + i, x {operation} y, mask=i < n)
"""


def elementwise(operation: str, n: int) -> KernelSource:
    pointers = (("x_ptr", "*fp32"), ("y_ptr", "*fp32"), ("o_ptr", "*fp32"))
    return KernelSource(
        name="kernel",
        text=_HEAD + BINARY_OP.format(operation=operation),
        signature=(*pointers, ("n", "constexpr"), ("block", "constexpr")),
        constexprs=(("n", n), ("block", BLOCK)),
    )


def call(operation: str, n: int, **keywords: Any) -> cuda.Kernel:
    binary = compile_kernel(elementwise(operation, n), CAPABILITY)
    types = [jax.ShapeDtypeStruct((n,), jnp.float32)]
    return cuda.kernel_call(binary, (-(-n // BLOCK),), types, **keywords)


def draw(n: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(n), jnp.float32)


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("n", [1, 1000, 1 << 20])
def test_machine_code_and_ptx(monkeypatch: pytest.MonkeyPatch, image: bool, n: int) -> None:
    if image and cuda.jaxlib_version() < cuda.READS_IMAGES:
        pytest.skip("this jaxlib reads no machine code")
    monkeypatch.setattr(cuda, "READS_IMAGES", (0,) if image else (99,))
    x, y = draw(n), draw(n, 1)
    (o,) = jax.jit(call("+", n, by_xla=False))(x, y)
    np.testing.assert_array_equal(o, np.asarray(x) + np.asarray(y))


by_either = pytest.mark.parametrize(
    "by_xla",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                cuda.jaxlib_version() < native.SINCE, reason="this jaxlib's XLA launches no images"
            ),
        ),
    ],
)


@by_either
@pytest.mark.parametrize("n", [1, 1000, 1 << 20])
def test_one_buffer_as_several_operands(by_xla: bool, n: int) -> None:
    # XLA merges equal buffers of its own kernels into one parameter; ours have one each.
    kernel = call("+", n, by_xla=by_xla)
    x = draw(n)
    twice = np.asarray(x) * 2
    np.testing.assert_array_equal(jax.jit(lambda x: kernel(x, x)[0])(x), twice)
    viewed = jax.jit(lambda x: kernel(x, x.reshape(1, -1, 1).reshape(-1))[0])
    np.testing.assert_array_equal(viewed(x), twice)
    nested = jax.jit(lambda x: kernel(kernel(x, x)[0], kernel(x, x)[0])[0])
    np.testing.assert_array_equal(nested(x), 2 * twice)


@by_either
def test_donated_and_aliased_buffers(by_xla: bool) -> None:
    kernel = call("+", 1000, by_xla=by_xla, aliases={0: 0})
    x, y = draw(1000), draw(1000, 1)
    expected = np.asarray(x) + np.asarray(y)

    def program(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        (o,) = kernel(x, y)
        return o, x * y  # x is used after the kernel overwrote its buffer: XLA must copy it

    o, product = jax.jit(program)(x, y)
    np.testing.assert_array_equal(o, expected)
    np.testing.assert_array_equal(product, np.asarray(x) * np.asarray(y))
    given = jnp.array(x)
    (o,) = jax.jit(kernel, donate_argnums=0)(given, y)
    np.testing.assert_array_equal(o, expected)
    assert given.is_deleted()


@by_either
def test_kernels_in_loops_and_long_chains(by_xla: bool) -> None:
    kernel = call("+", 1000, by_xla=by_xla)
    x, y = draw(1000), jnp.ones(1000)

    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 30, lambda _, v: kernel(v, y)[0], x)

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(30):
            x = kernel(x, y)[0]
        return x

    expected = np.asarray(x)
    for _ in range(30):
        expected = expected + np.float32(1)
    for function in (loop, chain):
        compiled = jax.jit(function)
        for _ in range(3):  # recorded, replayed, and replayed with other addresses
            np.testing.assert_array_equal(compiled(jnp.array(x)), expected)


@by_either
def test_equal_names_are_not_mixed_up(by_xla: bool) -> None:
    # The same name, the same shared memory, different code, in one program.
    add, multiply = call("+", 1000, by_xla=by_xla), call("*", 1000, by_xla=by_xla)
    x, y = draw(1000), draw(1000, 1)

    @jax.jit
    def program(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        (s,), (p,) = add(x, y), multiply(x, y)
        (both,) = add(s, p)
        return p, both

    p, both = program(x, y)
    np.testing.assert_array_equal(p, np.asarray(x) * np.asarray(y))
    np.testing.assert_allclose(both, np.asarray(x + y) + np.asarray(p), rtol=1e-6)


def test_scalars_zeroing_and_aliasing() -> None:
    kinds = {"a": "i1", "b": "i32", "c": "u32", "d": "i64", "e": "u64", "f": "fp32", "g": "fp64"}
    text = """def kernel(x_ptr, a, b, c, d, e, f, g, count_ptr, o_ptr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    total = b.to(tl.float64) + c + d + e + f + g + tl.where(a, 0.5, 0.0)
    tl.store(o_ptr + i, tl.load(x_ptr + i) + total.to(tl.float32))
    tl.atomic_add(count_ptr + tl.arange(0, 1), tl.full((1,), 1, tl.int32))
"""
    outputs = (("count_ptr", "*i32"), ("o_ptr", "*fp32"), ("block", "constexpr"))
    source = KernelSource(
        name="kernel",
        text=_HEAD + text,
        signature=(("x_ptr", "*fp32"), *kinds.items(), *outputs),
        constexprs=(("block", BLOCK),),
    )
    kernel = cuda.kernel_call(
        compile_kernel(source, CAPABILITY),
        (4,),
        [jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((4 * BLOCK,), jnp.float32)],
        scalars=(True, -3, 5, -7, 11, 0.25, 0.125),
        zeroed=[0],
        aliases={0: 1},
    )
    x = draw(4 * BLOCK)
    for _ in range(3):  # zeroed at every launch; x is used again, so XLA must copy it
        count, o = jax.jit(kernel)(x)
        assert count.tolist() == [4]
        np.testing.assert_allclose(o, np.asarray(x) + 6.875, rtol=1e-6)


MATMUL = """def kernel(a_ptr, b_ptr, o_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    a_desc = tl.make_tensor_descriptor(a_ptr, [M, K], [K, 1], [128, 64])
    b_desc = tl.make_tensor_descriptor(b_ptr, [K, N], [N, 1], [64, 128])
    o_desc = tl.make_tensor_descriptor(o_ptr, [M, N], [N, 1], [128, 128])
    acc = tl.zeros((128, 128), tl.float32)
    for k in tl.range(0, K, 64, warp_specialize=SPECIALIZE):
        a = a_desc.load([tl.program_id(0) * 128, k])
        b = b_desc.load([k, tl.program_id(1) * 128])
        acc = tl.dot(a, b, acc)
    o_desc.store([tl.program_id(0) * 128, tl.program_id(1) * 128], acc.to(tl.float16))
"""


@pytest.mark.skipif(CAPABILITY < 90, reason="descriptors are Hopper's")
@pytest.mark.skipif(cuda.jaxlib_version() < (0, 11, 2), reason="this jaxlib has no scratch memory")
@pytest.mark.parametrize("specialize", [False, True])
def test_descriptors_and_warp_specialisation(specialize: bool) -> None:
    pointers = (("a_ptr", "*fp16"), ("b_ptr", "*fp16"), ("o_ptr", "*fp16"))
    source = KernelSource(
        name="kernel",
        text=_HEAD + MATMUL.replace("SPECIALIZE", str(specialize)),
        signature=(*pointers, *((name, "constexpr") for name in "MNK")),
        constexprs=(("M", 512), ("N", 384), ("K", 256)),
    )
    binary = compile_kernel(source, CAPABILITY)
    assert binary.scratch_size > 0
    assert (binary.num_warps > 4) == specialize
    kernel = cuda.kernel_call(binary, (4, 3), [jax.ShapeDtypeStruct((512, 384), jnp.float16)])
    a = draw(512 * 256).reshape(512, 256).astype(jnp.float16)
    b = draw(256 * 384, 1).reshape(256, 384).astype(jnp.float16)
    (o,) = jax.jit(kernel)(a, b)
    expected = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    np.testing.assert_allclose(np.asarray(o, np.float64), expected, rtol=2e-3, atol=2e-2)


def test_both_routes_compute_the_same() -> None:
    if not jaxtriton.probe().target:
        pytest.skip(jaxtriton.probe().reason)
    n = 1000
    kernel = jaxtriton.jax_triton_call(
        elementwise("+", n),
        CAPABILITY,
        (-(-n // BLOCK),),
        [jax.ShapeDtypeStruct((n,), jnp.float32)],
    )
    x, y = draw(n), draw(n, 1)
    np.testing.assert_array_equal(jax.jit(kernel)(x, y)[0], jax.jit(call("+", n))(x, y)[0])


@by_either
def test_a_wrong_device_is_an_error_not_a_time(by_xla: bool) -> None:
    binary = compile_kernel(elementwise("+", 1000), CAPABILITY)
    greedy = dataclasses.replace(binary, shared=300 * 1024)
    types = [jax.ShapeDtypeStruct((1000,), jnp.float32)]
    kernel = cuda.kernel_call(greedy, (4,), types, by_xla=by_xla)
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.block_until_ready(jax.jit(kernel)(draw(1000), draw(1000, 1)))


def test_timers() -> None:
    n = 1 << 22
    kernel = call("+", n)
    x, y = draw(n), draw(n, 1)
    single = device_time.device_time(kernel, (x, y))
    assert [name for name, _ in single.kernels] == ["kernel"]
    assert 2.0 < single.median_us < 1000.0
    sets = device_time.operand_sets((x, y), 50 * 2**20, cold=True)
    cold: Any = device_time.chain_device_time(kernel, sets)
    assert len(cold.kernels) == len(sets)
    chain = device_time.chain_time(kernel, sets)
    assert 0.8 * cold.median_us < chain.median_us < 20.0 * cold.median_us
    assert device_time.measure(kernel, (x, y)).kernels == 1
