"""Kernels as JAX calls: the wire format, the calls' types, and lowering for CUDA without a GPU."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import mlir

from prism_jax import compat
from prism_jax.emit import entry
from prism_jax.emit.binary import Binary, KernelSource
from prism_jax.emit.compile import CompileError, compile_kernel
from prism_jax.launch import cuda, jaxtriton, native, wire

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
needs_plugin = pytest.mark.skipif(not cuda.register(), reason="jax's CUDA plugin is not installed")
ROOT = Path(__file__).parents[1]

ADD = KernelSource(
    name="add",
    text=(
        "import triton\nimport triton.language as tl\n\n\n@triton.jit\n"
        "def add(x_ptr, y_ptr, o_ptr, block: tl.constexpr):\n"
        "    i = tl.program_id(0) * block + tl.arange(0, block)\n"
        "    tl.store(o_ptr + i, tl.load(x_ptr + i) + tl.load(y_ptr + i))\n"
    ),
    signature=(("x_ptr", "*fp32"), ("y_ptr", "*fp32"), ("o_ptr", "*fp32"), ("block", "constexpr")),
    constexprs=(("block", 128),),
)
#: Stands for a compiled kernel where its code is never run.
FAKE = Binary(
    name="fake",
    compute_capability=90,
    parameters=("*fp32", "i32", "*bf16", "*fp32", "fp64"),
    pointer_divisibility=(16, 0, 4, 16, 0),
    ptx="ptx",
    cubin=b"cubin",
    shared=1024,
    num_warps=4,
    num_ctas=1,
    registers=32,
    stack=0,
)
VECTOR = jax.ShapeDtypeStruct((256,), jnp.float32)
HALF = jax.ShapeDtypeStruct((256,), jnp.bfloat16)


def lower(function: Any, *args: Any) -> Any:
    return jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",))


def calls(lowered: Any) -> list[Any]:
    """The attributes of every custom call in a lowered function, in order."""
    found: list[Any] = []

    def visit(operation: Any) -> Any:
        if operation.name == "stablehlo.custom_call":
            found.append(operation.attributes)
        return mlir.ir.WalkResult.ADVANCE

    lowered.compiler_ir("stablehlo").operation.walk(visit)
    return found


def opaque(attributes: Any) -> bytes:
    """The uncompressed message of a call, whichever target it has."""
    if attributes["call_target_name"].value == cuda.TARGET:
        config = attributes["mhlo.backend_config"]
        return zlib.decompress(config["opaque"].value_bytes)
    return zlib.decompress(attributes["backend_config"].value_bytes)


def fields(message: bytes) -> dict[int, list[Any]]:
    """A protobuf message read without its schema: field number to values, in order."""
    found: dict[int, list[Any]] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value, shift = 0, 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            value: Any = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value = message[position : position + size]
            position += size
        found.setdefault(key >> 3, []).append(value)
    return found


# --- the wire format


@needs_plugin
@given(
    numbers=st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6),
    texts=st.lists(st.text(max_size=200), min_size=4, max_size=4),
    scratch=st.none() | st.tuples(st.integers(0, 4096), st.sampled_from([1, 16, 128])),
    parameters=st.lists(
        st.tuples(st.just("array"), st.tuples(st.integers(0, 2**40), st.sampled_from([0, 16])))
        | st.tuples(st.just("i1"), st.booleans())
        | st.tuples(st.just("i32"), st.integers(-(2**31), 2**31 - 1))
        | st.tuples(st.just("u32"), st.integers(0, 2**32 - 1))
        | st.tuples(st.just("i64"), st.integers(-(2**63), 2**63 - 1))
        | st.tuples(st.just("u64"), st.integers(0, 2**64 - 1))
        | st.tuples(st.just("fp32"), st.floats(width=32, allow_nan=False))
        | st.tuples(st.just("fp64"), st.floats(allow_nan=False)),
        max_size=6,
    ),
)
def test_bytes_are_those_of_jaxlib(numbers: Any, texts: Any, scratch: Any, parameters: Any) -> None:
    from jaxlib import gpu_triton

    name, ptx, ttir, call_name = texts
    warps, shared, capability = 1 + numbers[0] % 32, numbers[1], numbers[2] % 2**31
    grid = (numbers[3], numbers[4], numbers[5])
    size, align = scratch or (None, None)
    if cuda.jaxlib_version() < (0, 11, 2):  # its kernels have no scratch memory
        size = align = None
    optional = () if size is None else (size, align)
    theirs = gpu_triton.TritonKernelCall(
        gpu_triton.TritonKernel(name, warps, 2, shared, ptx, ttir, capability, *optional),
        *grid,
        [
            gpu_triton.create_array_parameter(*value)
            if kind == "array"
            else gpu_triton.create_scalar_parameter(value, {"i1": "B"}.get(kind, kind))
            for kind, value in parameters
        ],
    ).to_proto(call_name, b"")
    kernel = wire.Kernel(
        name=name,
        num_warps=warps,
        num_ctas=2,
        shared=shared,
        ptx=ptx,
        ttir=ttir,
        compute_capability=capability,
        scratch_size=size,
        scratch_align=align,
    )
    encoded = [
        wire.array(*value) if kind == "array" else wire.scalar(kind, value)
        for kind, value in parameters
    ]
    assert wire.call(kernel, grid, encoded, call_name) == theirs


@pytest.mark.parametrize(
    ("kind", "value"),
    [("i32", 2**31), ("u32", -1), ("i32", 0.5), ("i1", 2), ("fp16", 1.0), ("u64", 2**64)],
)
def test_scalars_must_fit(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match=kind):
        wire.scalar(kind, value)


def test_the_message_identifies_the_code() -> None:
    # jaxlib finds a loaded image by name, shared bytes and PTX text, not by its machine code.
    other = dataclasses.replace(FAKE, cubin=b"other")
    texts: list[bytes] = []
    for binary in (FAKE, other):
        message = zlib.decompress(cuda.encode(binary, (1, 1, 1), (7, 0.5), (0, 0, 0), image=True))
        kernel = fields(fields(fields(message)[1][0])[1][0])
        image = fields(kernel[11][0])
        assert image == {1: [binary.cubin], 2: [b"fake"], 3: [1024]}
        texts.append(kernel[4][0])
    assert texts[0] != texts[1]
    message = zlib.decompress(cuda.encode(FAKE, (1, 1, 1), (7, 0.5), (0, 0, 0), image=False))
    kernel = fields(fields(fields(message)[1][0])[1][0])
    assert kernel[4] == [b"ptx"]
    assert 11 not in kernel


def test_scratch_memory_and_zeroing_are_passed_on() -> None:
    binary = dataclasses.replace(FAKE, scratch_size=384, scratch_align=128)
    call = cuda.kernel_call(binary, (3, 2), [HALF, VECTOR], scalars=(7, 0.5), zeroed=[1])
    (attributes,) = calls(lower(call, VECTOR))
    message = fields(fields(opaque(attributes))[1][0])
    kernel = fields(message[1][0])
    assert (kernel[12], kernel[13]) == ([384], [128])
    assert (message[2], message[3], message[4]) == ([3], [2], [1])
    parameters = [fields(parameter) for parameter in message[5]]
    arrays = [fields(p[1][0]) for p in parameters if 1 in p]
    assert arrays == [{2: [16]}, {2: [4]}, {1: [1024], 2: [16]}]
    assert parameters[1] == {3: [7]}


# --- calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0,)}, "0 is not between 1"),
        ({"grid": (1, 65536)}, "65536 is not between 1 and 65535"),
        ({"grid": (1, 1, 1, 1)}, "one to three dimensions"),
        ({"scalars": (1,)}, "takes 2 scalars, not 1"),
        ({"scalars": (2**31, 0.5)}, "i32 cannot hold"),
        ({"out_types": [VECTOR, HALF]}, "output 0 is float32"),
        ({"out_types": [VECTOR] * 4}, "has 3 pointers"),
        ({"out_types": []}, "cannot have 0 outputs"),
        ({"zeroed": [2]}, "no such output"),
        ({"aliases": {1: 0}}, "has 1 inputs"),
        ({"aliases": {0: 1}, "zeroed": [1]}, "overlap"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"grid": (1,), "out_types": [HALF, VECTOR], "scalars": (7, 0.5)}
    with pytest.raises(ValueError, match=message):
        cuda.kernel_call(FAKE, **{**arguments, **change})


def test_arrays_must_fit() -> None:
    call = cuda.kernel_call(FAKE, (1,), [HALF, VECTOR], (7, 0.5), aliases={0: 1})
    with pytest.raises(ValueError, match="takes 1 arrays, not 2"):
        lower(call, VECTOR, VECTOR)
    with pytest.raises(ValueError, match=r"input 0 is bfloat16, not \*fp32"):
        lower(call, HALF)
    with pytest.raises(ValueError, match="input 0 and output 1 differ"):
        lower(call, jax.ShapeDtypeStruct((128,), jnp.float32))
    (attributes,) = calls(lower(call, VECTOR))
    assert "output_tuple_indices = [1], operand_index = 0" in str(
        attributes["output_operand_aliases"]
    )


@needs_triton
@pytest.mark.parametrize("by_xla", [True, False])
def test_kernels_chain_and_lower_without_a_gpu(by_xla: bool) -> None:
    binary = compile_kernel(ADD, 90)
    call = cuda.kernel_call(binary, (2,), [VECTOR], by_xla=by_xla)

    def program(x: jax.Array, y: jax.Array) -> jax.Array:
        (z,) = call(x, y)
        (z,) = call(jnp.sin(z), y)
        return z

    primitive = Primitive("chained_kernels")
    primitive.def_abstract_eval(lambda x, y: ShapedArray(x.shape, x.dtype))
    rule = mlir.lower_fun(program, multiple_results=False)
    mlir.register_lowering(primitive, rule, platform="cuda")
    for function in (program, primitive.bind):
        lowered = lower(function, VECTOR, VECTOR)
        found = calls(lowered)
        target = native.TARGET if by_xla else cuda.TARGET
        assert [a["call_target_name"].value for a in found] == [target] * 2
        assert "add" in lowered.as_text(debug_info=True)
        if by_xla:
            config = found[0]["mhlo.backend_config"]
            assert config["kernel_data"].value_bytes == binary.cubin
            assert config["name"].value == "add"
            sizes = {n: config[f"{n}_{d}"].value for n in ("grid", "block") for d in "xyz"[:1]}
            assert sizes == {"grid": 2, "block": 32 * binary.num_warps}
            assert config["shared_mem_bytes"].value == binary.shared
            continue
        kernel = fields(fields(fields(opaque(found[0]))[1][0])[1][0])
        assert kernel[1] == [b"add"]
        code = fields(kernel[11][0])[1] if 11 in kernel else kernel[4]
        assert code in ([binary.cubin], [binary.ptx.encode()])


@needs_triton
def test_what_jax_stores_is_text(tmp_path: Path) -> None:
    """XLA cannot read back a stored program with machine code in it."""

    def data() -> bytes:
        program = cuda.kernel_call(binary, (2,), [VECTOR], by_xla=True)
        (call,) = calls(lower(lambda x, y: program(x, y)[0], VECTOR, VECTOR))
        return call["mhlo.backend_config"]["kernel_data"].value_bytes

    binary = compile_kernel(ADD, 90)
    names = ["jax_enable_compilation_cache", "jax_compilation_cache_dir"]
    before = [getattr(jax.config, name) for name in names]
    try:
        for values, code in (
            ((True, None), binary.cubin),
            ((True, str(tmp_path)), binary.ptx.encode()),
            ((False, str(tmp_path)), binary.cubin),
        ):
            for name, value in zip(names, values, strict=True):
                jax.config.update(name, value)
            assert data() == code
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)


@needs_triton
@pytest.mark.parametrize(
    ("served", "ptx", "reads"),
    [(None, "9.9", True), (12080, "8.7", True), (12070, "8.7", False), (12060, "8.5", True),
     (13000, "9.0", True), (12090, "9.0", False), (13010, "9.1", True), (13000, "", False)],
)  # fmt: skip
def test_a_driver_older_than_the_text_gets_machine_code(
    served: int | None, ptx: str, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "driver", lambda: served)
    version = f".version {ptx}" if ptx else ""
    binary = dataclasses.replace(compile_kernel(ADD, 90), ptx=f"// made\n{version}\n")
    assert native.readable(binary)  # machine code, whatever the driver
    monkeypatch.setattr(compat, "stores_programs", lambda: True)
    assert native.readable(binary) == reads


@needs_triton
def test_who_can_launch_a_kernel() -> None:
    binary = compile_kernel(ADD, 90)
    assert entry.parameters(binary.ptx, "add") == tuple(f"add_param_{n}" for n in range(3))
    assert native.able(binary)
    # One parameter more than there are arrays: XLA would pass too little.
    longer = binary.ptx.replace("add_param_2\n", "add_param_2,\n\t.param .u64 add_param_3\n", 1)
    unable = [
        dataclasses.replace(binary, ptx=longer),
        dataclasses.replace(binary, ptx="no such entry"),
        dataclasses.replace(binary, num_ctas=2),
        dataclasses.replace(binary, scratch_size=128),
    ]
    for other in unable:
        assert not native.able(other)
        with pytest.raises(ValueError, match="needs more than arrays"):
            cuda.kernel_call(other, (2,), [VECTOR], by_xla=True)
    with pytest.raises(ValueError, match="needs more than arrays"):
        cuda.kernel_call(binary, (2,), [VECTOR], zeroed=[0], by_xla=True)
    chosen = cuda.kernel_call(binary, (2,), [VECTOR])
    (attributes,) = calls(lower(chosen, VECTOR, VECTOR))
    by_xla = cuda.jaxlib_version() >= native.SINCE
    assert (attributes["call_target_name"].value == native.TARGET) == by_xla


def test_what_a_kernel_reads_stays() -> None:
    ptx = (
        ".visible .entry f(\n\t.param .u64 .ptr .global f_param_0,\n"
        "\t.param .align 4 .b8 f_param_1[8],\n\t.param .u64 f_param_10\n)\n"
        "{ ld.param.b64 %rd1, [READ]; }\n"
    )
    names = ("f_param_0", "f_param_1", "f_param_10")
    for read, keep, left in [
        ("f_param_0", 0, 1),
        ("f_param_0", 2, 2),
        ("f_param_1+4", 0, 2),
        ("f_param_10", 0, 3),
        ("%rd2", 0, 0),
    ]:
        text = ptx.replace("READ", read)
        lean = entry.without_unread(text, "f", keep)
        assert entry.parameters(lean, "f") == names[:left]
        assert lean.partition("{")[2] == text.partition("{")[2]
    assert entry.without_unread(ptx, "g", 0) == ptx
    assert entry.parameters(ptx, "g") == ()


@needs_triton
def test_lowered_text_is_the_same_in_every_process() -> None:
    program = (
        "import hashlib, jax, prism_jax.launch.cuda as cuda\n"
        "from prism_jax.emit.binary import KernelSource\n"
        "from prism_jax.emit.compile import compile_kernel\n"
        f"source = {ADD!r}\n"
        "vector = jax.ShapeDtypeStruct((256,), 'float32')\n"
        "call = cuda.kernel_call(compile_kernel(source, 90), (2,), [vector])\n"
        "lowered = jax.jit(call).trace(vector, vector).lower(lowering_platforms=('cuda',))\n"
        "print(hashlib.sha256(lowered.as_text().encode()).hexdigest())\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


# --- through jax-triton

_WITH_JAX_TRITON = f"""
import os, sys
os.environ["TRITON_CACHE_DIR"] = "/kept"
sys.path.insert(0, {str(Path(__file__).parent)!r})
import jax
from test_triton_launch import ADD, VECTOR, calls, fields, lower, opaque
from prism_jax.emit import entry
from prism_jax.emit.compile import compile_kernel
from prism_jax.launch import cuda, jaxtriton, native, wire

probe = jaxtriton.probe()
assert os.environ["TRITON_CACHE_DIR"] == "/kept"
os.environ["TRITON_CACHE_DIR"] = ""
print(repr(probe))
binary = compile_kernel(ADD, 90)
if probe.target:
    (call,) = calls(lower(jaxtriton.jax_triton_call(ADD, 90, (2,), [VECTOR]), VECTOR, VECTOR))
    assert call["call_target_name"].value == probe.target
    theirs = opaque(call)
    kernel = fields(fields(fields(theirs)[1][0])[1][0])
    (ptx,) = (text.decode() for text in kernel[4])
    lean = entry.without_unread(ptx, "add", 3)
    assert lean == binary.ptx != ptx, "the two routes compile to different code"
    ours = wire.Kernel(
        name=binary.name, num_warps=binary.num_warps, num_ctas=binary.num_ctas,
        shared=binary.shared, ptx=ptx, ttir=kernel[5][0].decode(), compute_capability=90,
    )
    parameters = [wire.array(0, 16)] * 3
    assert wire.call(ours, (2, 1, 1), parameters, "add") == theirs
    chosen = jaxtriton.call(ADD, 90, (2,), [VECTOR])
    (call,) = calls(lower(chosen, VECTOR, VECTOR))
    by_xla = probe.reason and cuda.jaxlib_version() >= native.SINCE
    assert call["call_target_name"].value == (native.TARGET if by_xla else cuda.TARGET)
    if not by_xla:
        assert bool(fields(fields(fields(opaque(call))[1][0])[1][0]).get(5)) == (not probe.reason)
"""


@needs_triton
def test_both_routes_send_the_same_bytes() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _WITH_JAX_TRITON],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Probe(")
    if importlib.util.find_spec("jax_triton") is None:
        assert "not installed" in run.stdout


@needs_triton
def test_what_jax_triton_would_change_goes_the_direct_way() -> None:
    scalar = dataclasses.replace(
        ADD, signature=(*ADD.signature[:3], ("n", "i32"), ADD.signature[3])
    )
    changes = [
        scalar,
        dataclasses.replace(ADD, divisibility=(("x_ptr", 4),)),
        dataclasses.replace(ADD, text=ADD.text + "# warp_specialize\n"),
        dataclasses.replace(ADD, options=(("maxnreg", 64),)),
    ]
    for source in changes:
        with pytest.raises(ValueError, match="cannot go through jax-triton: it"):
            jaxtriton.jax_triton_call(source, 90, (2,), [VECTOR])
    for source, zeroed in itertools.product(changes[1:], ([], [0])):
        chosen = jaxtriton.call(source, 90, (2,), [VECTOR], zeroed=zeroed)
        (call,) = calls(lower(chosen, VECTOR, VECTOR))
        by_xla = not zeroed and cuda.jaxlib_version() >= native.SINCE
        assert call["call_target_name"].value == (native.TARGET if by_xla else cuda.TARGET)
    with pytest.raises(CompileError):
        jaxtriton.call(scalar, 90, (2,), [VECTOR], scalars=[3])
    binary = compile_kernel(ADD, 90)
    chosen = jaxtriton.call(binary, 90, (2,), [VECTOR], zeroed=[0])
    (call,) = calls(lower(chosen, VECTOR, VECTOR))
    assert opaque(call) == zlib.decompress(cuda.encode(binary, (2, 1, 1), (), (0, 0, 1024)))
