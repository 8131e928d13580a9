"""The machine below the emitter: kernels compiled and interpreted without a GPU.

Longer than other files because both halves use the same kernels.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from prism_jax.device import ROWS
from prism_jax.emit import compile as toolchain
from prism_jax.emit.binary import SPILLED
from prism_jax.emit.compile import Binary, CompileError, KernelSource, compile_kernel, compile_many
from prism_jax.emit.interpret import InterpretError, interpret

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

_HEAD = "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"

ELEMENTWISE = """def kernel(x_ptr, y_ptr, o_ptr, n: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(x_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + i, mask=i < n, other=0.0).to(tl.float32)
    tl.store(o_ptr + i, x * tl.sigmoid(x) * y, mask=i < n)
"""

MATMUL = """def kernel(
    a_ptr, b_ptr, o_ptr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):
    m = (tl.program_id(0) * BM + tl.arange(0, BM))[:, None]
    n = (tl.program_id(1) * BN + tl.arange(0, BN))[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        left = (m < M) & (k[None, :] < K)
        right = (k[:, None] < K) & (n < N)
        a = tl.load(a_ptr + m * K + k[None, :], mask=left, other=0.0)
        b = tl.load(b_ptr + k[:, None] * N + n, mask=right, other=0.0)
        acc = tl.dot(a, b, acc)
    tl.store(o_ptr + m * N + n, acc, mask=(m < M) & (n < N))
"""

TWO_OUTPUTS = """def kernel(x_ptr, max_ptr, arg_ptr, rows, N: tl.constexpr, BN: tl.constexpr):
    row = tl.program_id(0)
    n = tl.arange(0, BN)
    x = tl.load(x_ptr + row * N + n, mask=(row < rows) & (n < N), other=float("-inf"))
    tl.store(max_ptr + row, tl.max(x, 0))
    tl.store(arg_ptr + row, tl.argmax(x, 0))
"""

SOFTMAX = """def kernel(
    x_ptr, o_ptr, M: tl.constexpr, N: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):
    m = (tl.program_id(0) * BM + tl.arange(0, BM))[:, None]
    n = tl.arange(0, BN)[None, :]
    inside = (m < M) & (n < N)
    x = tl.load(x_ptr + m * N + n, mask=inside, other=float("-inf")).to(tl.float32)
    e = tl.exp2((x - tl.max(x, 1)[:, None]) * 1.4426950408889634)
    tl.store(o_ptr + m * N + n, e / tl.sum(e, 1)[:, None], mask=inside)
"""


def make(text: str, types: dict[str, str], name: str = "kernel", **values: Any) -> KernelSource:
    """A source from a kernel's text, the types of its run-time parameters, constexprs, options."""
    options = {k: values.pop(k) for k in ("num_warps", "num_stages", "options") if k in values}
    return KernelSource(
        name=name,
        text=_HEAD + text,
        signature=(*types.items(), *((key, "constexpr") for key in values)),
        constexprs=tuple(values.items()),
        **options,
    )


def elementwise(dtype: str, n: int, block: int, **options: Any) -> KernelSource:
    types = {"x_ptr": dtype, "y_ptr": dtype, "o_ptr": dtype}
    return make(ELEMENTWISE, types, n=n, block=block, **options)


def matmul(
    dtype: str, shape: tuple[int, int, int], tile: tuple[int, int, int], **options: Any
) -> KernelSource:
    types = {"a_ptr": dtype, "b_ptr": dtype, "o_ptr": "*fp32"}
    values = dict(zip(("M", "N", "K", "BM", "BN", "BK"), (*shape, *tile), strict=True))
    return make(MATMUL, types, **values, **options)


def two_outputs(columns: int, tile: int) -> KernelSource:
    types = {"x_ptr": "*fp32", "max_ptr": "*fp32", "arg_ptr": "*i32", "rows": "i32"}
    return make(TWO_OUTPUTS, types, N=columns, BN=tile)


def softmax(
    dtype: str, shape: tuple[int, int], tile: tuple[int, int], **options: Any
) -> KernelSource:
    values = dict(zip(("M", "N", "BM", "BN"), (*shape, *tile), strict=True))
    return make(SOFTMAX, {"x_ptr": dtype, "o_ptr": dtype}, **values, **options)


def draw(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


BF16 = np.dtype(ml_dtypes.bfloat16)
KINDS = {"*fp32": np.dtype(np.float32), "*fp16": np.dtype(np.float16), "*bf16": BF16}


# --- interpreted against numpy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 64, 131])
def test_elementwise(kind: str, n: int) -> None:
    x, y = draw((n,), KINDS[kind]), draw((n,), KINDS[kind], 1)
    (o,) = interpret(elementwise(kind, n, 64), (-(-n // 64),), [x, y], [((n,), KINDS[kind])])
    wide = x.astype(np.float64)
    expected = wide / (1.0 + np.exp(-wide)) * y.astype(np.float64)
    assert o.dtype == KINDS[kind]
    tolerance = 2.0 * float(ml_dtypes.finfo(KINDS[kind]).eps)
    np.testing.assert_allclose(o.astype(np.float64), expected, rtol=tolerance, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 32, 16), (17, 33, 35)])
def test_matmul(kind: str, shape: tuple[int, int, int]) -> None:
    M, N, K = shape
    a, b = draw((M, K), KINDS[kind]), draw((K, N), KINDS[kind], 1)
    grid = (-(-M // 16), -(-N // 32))
    (o,) = interpret(matmul(kind, shape, (16, 32, 16)), grid, [a, b], [((M, N), np.float32)])
    # Triton's default for float32 is one TF32 pass, whose operands the matrix unit cuts.
    expected = as_multiplied(a).astype(np.float64) @ as_multiplied(b).astype(np.float64)
    np.testing.assert_allclose(o, expected, rtol=1e-5, atol=1e-5)


def as_multiplied(x: Any) -> Any:
    """The operand less the 13 bits that TF32 lacks; narrower types lose nothing."""
    if x.dtype != np.float32:
        return x
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.trunc(np.ldexp(mantissa, 11)), exponent - 11)


@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
def test_matmul_of_whole_float32_operands(precision: str) -> None:
    shape = M, N, K = 17, 33, 35
    a, b = draw((M, K), np.float32), draw((K, N), np.float32, 1)
    source = matmul(next(k for k in KINDS if KINDS[k] == np.float32), shape, (16, 32, 16))
    text = source.text.replace("tl.dot(a, b, acc)", f'tl.dot(a, b, acc, "{precision}")')
    assert precision in text
    source = dataclasses.replace(source, text=text)
    (o,) = interpret(source, (2, 2), [a, b], [((M, N), np.float32)])
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(o, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 5, 64])
def test_two_outputs_and_a_scalar(columns: int) -> None:
    x = draw((3, columns), np.float32)
    types = [((3,), np.float32), ((3,), np.int32)]
    largest, where = interpret(two_outputs(columns, 64), (3,), [x], types, scalars=[3])
    np.testing.assert_array_equal(largest, x.max(1))
    np.testing.assert_array_equal(where, x.argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_reduction(kind: str) -> None:
    x = 20.0 * draw((5, 37), np.float32)
    x = x.astype(KINDS[kind])
    (o,) = interpret(softmax(kind, (5, 37), (4, 64)), (2,), [x], [((5, 37), KINDS[kind])])
    wide = np.exp(x.astype(np.float64) - x.astype(np.float64).max(1, keepdims=True))
    expected = wide / wide.sum(1, keepdims=True)
    eps = float(ml_dtypes.finfo(KINDS[kind]).eps)  # exp2 of up to 100 rounds at 100 eps of fp32
    smallest = float(ml_dtypes.finfo(KINDS[kind]).smallest_subnormal)
    np.testing.assert_allclose(o.astype(np.float64), expected, rtol=2 * eps + 2e-5, atol=smallest)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("bf16", BF16), ("fp8e4nv", ml_dtypes.float8_e4m3fn), ("fp8e5", ml_dtypes.float8_e5m2)],
)
def test_casts_round_to_nearest_even(kind: str, dtype: Any) -> None:
    text = """def kernel(x_ptr, o_ptr, w_ptr, block: tl.constexpr):
    i = tl.arange(0, block)
    o = tl.load(x_ptr + i).to(o_ptr.dtype.element_ty)
    tl.store(o_ptr + i, o)
    tl.store(w_ptr + i, o.to(tl.float32))
"""
    types = {"x_ptr": "*fp32", "o_ptr": "*" + kind, "w_ptr": "*fp32"}
    ties = np.float32(1.0) + np.arange(-64, 64, dtype=np.float32) / 1024
    bits = np.random.default_rng(0).integers(0, 2**32, 4096 - 256 - 8, np.uint64).astype(np.uint32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3.4e38, 448.0]
    near = draw((128,), np.float32) * 2.0**-9
    x = np.concatenate([ties, near, bits.view(np.float32), np.array(special, np.float32)])
    o, w = interpret(
        make(text, types, block=4096), (1,), [x], [((4096,), dtype), ((4096,), np.float32)]
    )
    with np.errstate(all="ignore"):
        expected = x.astype(dtype)
    np.testing.assert_array_equal(w, expected.astype(np.float32))
    np.testing.assert_array_equal(o.astype(np.float32), expected.astype(np.float32))


def test_bf16_arithmetic_and_maximum_of_nan() -> None:
    text = """def kernel(x_ptr, y_ptr, sum_ptr, max_ptr, block: tl.constexpr):
    i = tl.arange(0, block)
    x, y = tl.load(x_ptr + i), tl.load(y_ptr + i)
    tl.store(sum_ptr + i, x + y)
    tl.store(max_ptr + i, tl.maximum(x.to(tl.float32), y.to(tl.float32)))
"""
    types = dict.fromkeys(("x_ptr", "y_ptr", "sum_ptr"), "*bf16") | {"max_ptr": "*fp32"}
    x, y = draw((64,), BF16), draw((64,), BF16, 1)
    y[7] = np.nan
    outs = [((64,), BF16), ((64,), np.float32)]
    total, largest = interpret(make(text, types, block=64), (1,), [x, y], outs)
    np.testing.assert_array_equal(total.astype(np.float32), (x + y).astype(np.float32))
    expected = np.fmax(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_array_equal(largest, expected)
    assert not np.isnan(largest[7])


def test_reduction_with_a_function_of_ones_own() -> None:
    helper = """def merge(m, s, n, t):
    top = tl.maximum(m, n)
    return top, s * tl.exp(m - top) + t * tl.exp(n - top)


@triton.jit
"""
    text = (
        helper
        + """def kernel(x_ptr, m_ptr, s_ptr, p_ptr, M: tl.constexpr, N: tl.constexpr):
    m = tl.arange(0, M)
    x = tl.load(x_ptr + m[:, None] * N + tl.arange(0, N)[None, :])
    top, total = tl.reduce((x, tl.full((M, N), 1.0, tl.float32)), 1, merge)
    tl.store(m_ptr + m, top)
    tl.store(s_ptr + m, total)
    whole, _ = tl.reduce((x, tl.full((M, N), 1.0, tl.float32)), None, merge)
    tl.store(p_ptr, whole)
"""
    )
    types = dict.fromkeys(("x_ptr", "m_ptr", "s_ptr", "p_ptr"), "*fp32")
    source = make(text, dict(types.items()), M=8, N=32)
    assert isinstance(compile_kernel(source, 90), Binary)
    x = draw((8, 32), np.float32)
    outs = [((8,), np.float32), ((8,), np.float32), ((), np.float32)]
    top, total, whole = interpret(source, (1,), [x], outs)
    np.testing.assert_array_equal(top, x.max(1))
    np.testing.assert_allclose(total, np.exp(x - x.max(1, keepdims=True)).sum(1), rtol=1e-5)
    assert whole == x.max()


def test_zeroed_and_aliased_outputs_and_atomics() -> None:
    text = """def kernel(x_ptr, count_ptr, o_ptr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(o_ptr + i, 2.0 * tl.load(x_ptr + i))
    tl.atomic_add(count_ptr, 1)
"""
    types = {"x_ptr": "*fp32", "count_ptr": "*i32", "o_ptr": "*fp32"}
    x = draw((32,), np.float32)
    outs = [((1,), np.int32), ((32,), np.float32)]
    source = make(text, types, block=16)
    count, o = interpret(source, (2,), [x], outs, zeroed=[0], aliases={0: 1})
    np.testing.assert_array_equal(o, 2.0 * x)
    assert count.tolist() == [2]


# --- what the interpreter refuses


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "x_ptr + i, mask=i < n, other=0.0",
            "x_ptr + i",
            r"loads element 70 of x_ptr, which has 70",
        ),
        ("x * tl.sigmoid(x) * y, mask=i < n", "x", r"stores element 70 of o_ptr, which has 70"),
        (
            "mask=i < n)\n",
            "mask=i < n - 1)\n",
            r"1 of 70 elements of o_ptr are never stored, .* \[69\]",
        ),
        (
            "store(o_ptr + i",
            "store(x_ptr + i",
            r"stores element 0 of x_ptr, which is an input \(line 10: tl.st",
        ),
        (
            "store(o_ptr + i",
            "store(o_ptr + i % 64",
            r"element 0 of o_ptr, which another program stores too",
        ),
        ("tl.load(y_ptr", "tl.load(o_ptr", r"loads element 0 of o_ptr, which is not set yet"),
        ("tl.sigmoid", "tl.sigma", r"program \(0, 0, 0\) AttributeError.* \(line 10: "),
    ],
)
def test_wrong_kernels_are_refused(old: str, new: str, message: str) -> None:
    source = elementwise("*fp32", 70, 64)
    assert old in source.text
    source = dataclasses.replace(source, text=source.text.replace(old, new))
    x = draw((70,), np.float32)
    with pytest.raises(InterpretError, match=message):
        interpret(source, (2,), [x, x], [((70,), np.float32)])


def test_arrays_must_fit_the_signature() -> None:
    x = draw((8,), np.float16)
    with pytest.raises(ValueError, match="given"):
        interpret(elementwise("*fp32", 8, 8), (1,), [x, x], [((8,), np.float32)])


# --- compiled

#: source, then registers at most and shared bytes at most.
COMPILED = {
    "elementwise": (elementwise("*fp16", 10_000, 1024), 40, 0),
    "elementwise bf16": (elementwise("*bf16", 10_000, 1024), 40, 0),
    "matmul": (matmul("*fp16", (512, 512, 512), (128, 64, 32)), 168, 36_864),
    "matmul bf16": (matmul("*bf16", (512, 512, 512), (64, 128, 64)), 168, 73_728),
    "two outputs": (two_outputs(1000, 1024), 40, 64),
    "reduction": (softmax("*fp32", (64, 1000), (4, 1024)), 80, 256),
}


@pytest.fixture(scope="module")
def binaries() -> dict[tuple[str, int], Binary]:
    found: dict[tuple[str, int], Binary] = {}
    for capability in (80, 90):
        sources = [source for source, _, _ in COMPILED.values()]
        for name, result in zip(
            COMPILED, compile_many(sources, capability, workers=2), strict=True
        ):
            assert isinstance(result, Binary), result
            found[name, capability] = result
    return found


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", COMPILED)
def test_resources(binaries: dict[tuple[str, int], Binary], name: str, capability: int) -> None:
    source, registers, shared = COMPILED[name]
    binary = binaries[name, capability]
    assert binary.name == "kernel"
    assert binary.num_warps == source.num_warps
    assert f".reqntid {32 * source.num_warps}" in binary.ptx
    assert f".target sm_{capability}" in binary.ptx
    assert (binary.stack, binary.scratch_size) == (0, 0)
    assert 8 < binary.registers <= registers
    assert binary.shared <= shared
    assert toolchain.fits(binary, ROWS["A100" if capability == 80 else "H100"]) is None


def test_tensor_cores_and_pipelines_are_used(binaries: dict[tuple[str, int], Binary]) -> None:
    assert "wgmma.mma_async" in binaries["matmul", 90].ptx
    assert "mma.sync" in binaries["matmul bf16", 80].ptx
    assert "cp.async" in binaries["matmul", 80].ptx  # needs the pointers' divisibility
    assert binaries["matmul", 80].shared >= 2 * 2 * (128 * 32 + 32 * 64)


def test_resources_agree_with_cuobjdump(
    binaries: dict[tuple[str, int], Binary], tmp_path: Path
) -> None:
    specification = importlib.util.find_spec("triton")
    assert specification is not None
    (folder,) = specification.submodule_search_locations or [""]
    tool = Path(folder) / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this triton ships no cuobjdump")
    spilling = compile_kernel(matmul("*fp16", (512, 512, 512), (256, 256, 64), num_stages=2), 90)
    assert spilling.stack > 0
    for binary in (spilling, *binaries.values()):
        path = tmp_path / "kernel.cubin"
        path.write_bytes(binary.cubin)
        command = [str(tool), "--dump-resource-usage", str(path)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"Function kernel:\s+REG:(\d+) STACK:(\d+)", text)
        assert found is not None, text
        assert (binary.registers, binary.stack) == (int(found[1]), int(found[2]))


def test_fits() -> None:
    binary = compile_kernel(elementwise("*fp16", 10_000, 1024), 90)
    h100 = ROWS["H100"]
    cases = {
        "compiled for sm_90, the device is sm_80": (binary, ROWS["A100"]),
        "shared memory": (dataclasses.replace(binary, shared=h100.smem_per_block + 1), h100),
        "spills registers: 40 bytes": (dataclasses.replace(binary, stack=40), h100),
        "64 warps": (dataclasses.replace(binary, num_warps=64), h100),
        "registers in each": (dataclasses.replace(binary, registers=168, num_warps=16), h100),
    }
    for message, (changed, device) in cases.items():
        assert message in (toolchain.fits(changed, device) or "")
    assert toolchain.fits(dataclasses.replace(binary, stack=SPILLED), h100) is None
    # 100 registers in 8 warps: 26 624 of 65 536; 96 kB of shared memory: 2 of 228.
    assert (
        toolchain.blocks_per_sm(dataclasses.replace(binary, registers=100, num_warps=8), h100) == 2
    )
    assert toolchain.blocks_per_sm(dataclasses.replace(binary, shared=98_304), h100) == 2


def test_a_failure_is_only_that_kernels() -> None:
    good = elementwise("*fp32", 128, 128)
    bad = make(
        ELEMENTWISE.replace("tl.sigmoid(x)", "tl.dot(x)"),
        dict(good.signature[:3]),
        n=128,
        block=128,
    )
    first, second, third = compile_many([good, bad, good], 90, workers=2)
    assert isinstance(first, Binary)
    assert first == third
    assert isinstance(second, CompileError)
    assert str(second).startswith("kernel kernel does not compile: CompilationError: at 5:")
    assert "tl.dot(x)" in str(second)
    with pytest.raises(CompileError):
        compile_kernel(bad, 90)


def test_limits_are_kept() -> None:
    source = matmul("*fp16", (512, 512, 512), (256, 128, 64), num_warps=8)
    with pytest.raises(CompileError, match=r"stopped after 0\.0 s"):
        compile_kernel(source, 90, timeout=0.01)
    (late,) = compile_many([source], 90, workers=1, deadline=time.monotonic() - 1.0)
    assert isinstance(late, CompileError)
    assert "deadline" in str(late)


def test_prepared_workers_are_used() -> None:
    toolchain.close_workers()
    toolchain.prepare(90, 2)
    end = time.monotonic() + 20.0
    while len(toolchain._pool._idle) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    before = list(toolchain._pool._idle)
    compile_kernel(elementwise("*fp32", 128, 128), 90)
    assert sorted(map(id, toolchain._pool._idle)) == sorted(map(id, before))


def test_equal_sources_give_equal_bytes() -> None:
    source = softmax("*fp32", (64, 1000), (4, 1024))
    first = compile_kernel(source, 90)
    toolchain.close_workers()
    assert compile_kernel(source, 90) == first
    assert "/" not in first.ptx.split(".file")[1].split('"')[1].removeprefix("prism_jax/kernels/")


def described(shape: tuple[int, int, int], tile: tuple[int, int, int]) -> KernelSource:
    """`matmul` with device-side descriptors and specialised warps."""
    text = MATMUL.replace("range(0, K, BK)", "tl.range(0, K, BK, warp_specialize=True)")
    text = text.replace("    acc = tl.zeros", _DESCRIPTORS + "    acc = tl.zeros")
    text = re.sub(r"        k = start.*other=0.0\)\n", _DESCRIBED, text, flags=re.DOTALL)
    types = {"a_ptr": "*fp16", "b_ptr": "*fp16", "o_ptr": "*fp32"}
    values = dict(zip(("M", "N", "K", "BM", "BN", "BK"), (*shape, *tile), strict=True))
    return make(text, types, **values)


def test_warps_are_those_of_the_binary() -> None:
    binary = compile_kernel(described((512, 512, 512), (128, 128, 64)), 90)
    assert binary.num_warps > 4
    assert binary.scratch_size > 0
    assert f".reqntid {32 * binary.num_warps}" in binary.ptx


def test_descriptors_are_interpreted() -> None:
    a, b = draw((20, 40), np.float16), draw((40, 24), np.float16, 1)
    source = described((20, 24, 40), (16, 16, 16))
    (o,) = interpret(source, (2, 2), [a, b], [((20, 24), np.float32)])
    expected = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(o, expected, rtol=1e-5, atol=1e-5)


_DESCRIPTORS = """    a_desc = tl.make_tensor_descriptor(a_ptr, [M, K], [K, 1], [BM, BK])
    b_desc = tl.make_tensor_descriptor(b_ptr, [K, N], [N, 1], [BK, BN])
"""
_DESCRIBED = """        a = a_desc.load([tl.program_id(0) * BM, start])
        b = b_desc.load([start, tl.program_id(1) * BN])
"""


def test_packed_binaries(binaries: dict[tuple[str, int], Binary]) -> None:
    binary = binaries["matmul", 90]
    packed = binary.pack()
    assert Binary.unpack(packed) == binary
    assert Binary.unpack(packed).digest == binary.digest
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 1
    for damaged in (b"", packed[:-1], packed[:40], bytes(flipped), b"\0" * 32 + packed[32:]):
        with pytest.raises(ValueError, match="not a packed kernel"):
            Binary.unpack(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "identifier"),
        ({"constexprs": ()}, "declares constexprs"),
        ({"num_warps": 3}, "power of two"),
        ({"signature": (("x_ptr", "*fp17"),), "constexprs": ()}, "unknown types"),
        ({"options": (("launch_pdl", True),)}, "cannot launch"),
    ],
)
def test_sources_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(elementwise("*fp32", 128, 128), **change)


def test_the_text_must_define_the_kernel() -> None:
    source = dataclasses.replace(elementwise("*fp32", 128, 128), name="other")
    with pytest.raises(CompileError, match="the text defines other"):
        compile_kernel(source, 90)


def test_triton_stays_out_of_this_process() -> None:
    program = (
        "import sys, prism_jax.emit.compile, prism_jax.emit.interpret, prism_jax.launch.cuda\n"
        "import prism_jax.launch.jaxtriton\n"
        "print(sorted({'triton', 'jax_triton', 'sympy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert run.stdout.strip() == "[]"
