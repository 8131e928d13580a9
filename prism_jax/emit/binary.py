"""Kernels as values: `KernelSource` before compiling, `Binary` after, and whether it fits a device.

Nothing here compiles, and nothing here imports Triton or jax, so caches and launchers can use it.

In: a kernel's text with the types and constants it is compiled for, or what the compiler made of
it. Out: frozen values that check themselves, with content digests and bytes for a file.

>>> text = '''import triton
... import triton.language as tl
...
... @triton.jit
... def double(x_ptr, y_ptr, n: tl.constexpr, block: tl.constexpr):
...     i = tl.program_id(0) * block + tl.arange(0, block)
...     tl.store(y_ptr + i, 2.0 * tl.load(x_ptr + i, mask=i < n), mask=i < n)
... '''
>>> pointers = (("x_ptr", pointer_type("float32")), ("y_ptr", pointer_type("float32")))
>>> source = KernelSource(
...     name="double",
...     text=text,
...     signature=(*pointers, ("n", "constexpr"), ("block", "constexpr")),
...     constexprs=(("n", 1000), ("block", 128)),
... )
>>> source.parameters
('*fp32', '*fp32')
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

#: Triton's name for each dtype that a kernel of ours can load or store.
TRITON_TYPES: Mapping[str, str] = {
    "bool": "i1",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    "float8_e4m3fn": "fp8e4nv",
    "float8_e5m2": "fp8e5",
}
_SCALARS = frozenset({"i1", "i32", "u32", "i64", "u64", "fp32", "fp64"})
_POINTERS = frozenset("*" + name for name in TRITON_TYPES.values())

Value = bool | int | float | str | None

#: Of a packed kernel's contents. The largest of a suite has half a megabyte; what is small when
#: packed and without end when unpacked must not take the machine's memory.
MOST_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelSource:
    """One kernel, with everything that its machine code depends on but the device and the compiler.

    Attributes:
      name: name of the `@triton.jit` function; also what profilers show.
      text: the module that holds it: imports, helpers, the function. Runs on its own.
      signature: (parameter, type) in the order of the definition; a type is `"*fp16"` (pointer,
        `pointer_type` makes it), a scalar (`"i32"`, `"i64"`, `"fp32"`, ...), or `"constexpr"`.
      constexprs: (parameter, value) of each constexpr parameter.
      divisibility: (parameter, n): the argument is a multiple of n. Pointers: 16 unless given here
        (1 for none); integers: none unless given.
      num_warps: warps that the source is written for, a power of two.
      num_stages: depth of the software pipelines.
      num_ctas: blocks in a cluster (Hopper and newer).
      options: further options of Triton's CUDA backend, such as ("maxnreg", 128).

    Raises:
      ValueError: names, types and values that do not fit together.
    """

    name: str
    text: str
    signature: tuple[tuple[str, str], ...]
    constexprs: tuple[tuple[str, Value], ...] = ()
    divisibility: tuple[tuple[str, int], ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    num_ctas: int = 1
    options: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a kernel's name must be an identifier, not {self.name!r}")
        wrong = [t for _, t in self.signature if t not in _SCALARS | _POINTERS | {"constexpr"}]
        if wrong:
            raise ValueError(f"kernel {self.name} has parameters of unknown types {wrong}")
        constants = {name for name, kind in self.signature if kind == "constexpr"}
        given = {name for name, _ in self.constexprs}
        if constants != given:
            raise ValueError(
                f"kernel {self.name} declares constexprs {sorted(constants)}, has {sorted(given)}"
            )
        if self.num_warps < 1 or self.num_warps & (self.num_warps - 1):
            raise ValueError(f"num_warps must be a power of two, not {self.num_warps}")
        unable = {"launch_pdl", "launch_cooperative_grid"} & {name for name, _ in self.options}
        if unable:
            raise ValueError(f"jaxlib cannot launch a kernel compiled with {sorted(unable)}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Types of the parameters that exist at run time, in order."""
        return tuple(kind for _, kind in self.signature if kind != "constexpr")

    @property
    def attributes(self) -> dict[tuple[int, ...], list[list[Any]]]:
        """Divisibilities in the form that Triton takes: by position in the definition."""
        explicit = dict(self.divisibility)
        attributes: dict[tuple[int, ...], list[list[Any]]] = {}
        for position, (name, kind) in enumerate(self.signature):
            divisor = explicit.get(name, 16 if kind.startswith("*") else 1)
            if divisor > 1:
                attributes[(position,)] = [["tt.divisibility", divisor]]
        return attributes

    @property
    def pointer_divisibility(self) -> tuple[int, ...]:
        """Per run-time parameter: the alignment in bytes that the code relies on, 0 for scalars."""
        explicit = dict(self.divisibility)
        return tuple(
            explicit.get(name, 16) if kind.startswith("*") else 0
            for name, kind in self.signature
            if kind != "constexpr"
        )

    @property
    def digest(self) -> str:
        """sha256 of all of the above."""
        fields = dataclasses.astuple(self)
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binary:
    """A compiled kernel: what a launch needs, and what it will cost.

    Attributes:
      name: the entry's name in the code.
      compute_capability: what it was compiled for (90: sm_90a).
      parameters: types of the run-time parameters, in order, as in `KernelSource`.
      pointer_divisibility: alignment that each pointer must have, bytes; 0 for scalars.
      ptx, cubin: the code, as text and as machine code.
      shared: bytes of shared memory of one block.
      num_warps: warps of one block, as compiled (more than asked for under warp specialisation).
      num_ctas: blocks in a cluster.
      registers: per thread.
      stack: bytes of stack frame per thread; not 0 means spilled registers (or local arrays).
      scratch_size, scratch_align: bytes of global memory for each block (device-side descriptors).
    """

    name: str
    compute_capability: int
    parameters: tuple[str, ...]
    pointer_divisibility: tuple[int, ...]
    ptx: str
    cubin: bytes
    shared: int
    num_warps: int
    num_ctas: int
    registers: int
    stack: int
    scratch_size: int = 0
    scratch_align: int = 1

    @property
    def digest(self) -> str:
        """sha256 of the contents, which is also what `unpack` checks."""
        return hashlib.sha256(self._payload()).hexdigest()

    def pack(self) -> bytes:
        """The binary as bytes for a file: data only, nothing that runs when it is read."""
        payload = self._payload()
        return hashlib.sha256(payload).digest() + zlib.compress(payload)

    @staticmethod
    def unpack(data: bytes) -> Binary:
        """The binary that `pack` wrote. Raises ValueError for anything else, damaged bytes too."""
        try:
            unpacker = zlib.decompressobj()
            payload = unpacker.decompress(data[32:], MOST_BYTES)
            if not unpacker.eof or unpacker.unused_data:
                raise ValueError("too long, or cut off")
            if hashlib.sha256(payload).digest() != data[:32]:
                raise ValueError("checksum")
            (size,) = struct.unpack_from("<I", payload)
            fields = json.loads(payload[4 : 4 + size])
            fields["parameters"] = tuple(fields["parameters"])
            fields["pointer_divisibility"] = tuple(fields["pointer_divisibility"])
            return Binary(**fields, cubin=payload[4 + size :])
        except (ValueError, TypeError, KeyError, struct.error, zlib.error) as error:
            raise ValueError(f"not a packed kernel: {error}") from None

    def _payload(self) -> bytes:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        cubin: bytes = fields.pop("cubin")
        header = json.dumps(fields, sort_keys=True).encode()
        return struct.pack("<I", len(header)) + header + cubin


class Limits(Protocol):
    """The part of a device row that resource checks read."""

    @property
    def smem_per_block(self) -> int: ...
    @property
    def regs_per_sm(self) -> int: ...
    @property
    def compute_capability(self) -> int: ...


SPILLED = 32
"""Bytes of registers that a thread may spill: eight that are used outside the loops cost nothing
that could be measured, and measuring decides.
"""


def fits(binary: Binary, device: Limits) -> str | None:
    """Why `binary` must not run on `device`, or None.

    A kernel over the shared memory limit is refused only at launch, so this is asked before. A
    stack frame is no error, but a kernel that spills more than `SPILLED` loses to a smaller tile.
    """
    if binary.compute_capability != device.compute_capability:
        have, want = binary.compute_capability, device.compute_capability
        return f"compiled for sm_{have}, the device is sm_{want}"
    if binary.shared > device.smem_per_block:
        return f"needs {binary.shared} bytes of shared memory, a block has {device.smem_per_block}"
    if binary.stack > SPILLED:
        return f"spills registers: {binary.stack} bytes of stack"
    if binary.num_warps > 32:
        return f"needs {binary.num_warps} warps, a block has at most 32"
    if blocks_per_sm(binary, device) == 0:
        return f"needs {binary.registers} registers in each of {32 * binary.num_warps} threads"
    return None


def blocks_per_sm(binary: Binary, device: Limits) -> int:
    """Blocks that one multiprocessor holds at once, from registers, shared memory and threads.

    Registers are given out in units of 256 per warp, shared memory in units of 128 bytes and with
    1 kB of the system's own per block (CUDA's occupancy calculator, compute capability 8 and 9).
    """
    per_warp = -(-binary.registers * 32 // 256) * 256
    by_registers = device.regs_per_sm // max(1, per_warp) // binary.num_warps
    by_threads = 2048 // (32 * binary.num_warps)
    shared = -(-binary.shared // 128) * 128 + 1024
    by_shared = (device.smem_per_block + 1024) // shared
    return min(by_registers, by_threads, by_shared, 32)


def pointer_type(dtype: object) -> str:
    """Triton's type of a pointer to `dtype`, for a signature: `"*fp16"` for float16.

    Raises:
      ValueError: kernels cannot load or store this dtype.
    """
    name = str(getattr(dtype, "name", dtype))
    if name not in TRITON_TYPES:
        raise ValueError(f"a Triton kernel cannot hold {name}")
    return "*" + TRITON_TYPES[name]
