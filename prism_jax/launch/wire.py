"""jaxlib's kernel call as bytes: the protobuf that its FFI target `triton_kernel_call_ffi` reads.

In: what to launch and with which parameters. Out: the serialised `TritonAnyKernelCall` message,
identical byte for byte to what jaxlib's own serialiser (and so jax-triton) writes; tests compare.
Source: jaxlib/gpu/triton.proto and triton_kernels.cc of jax 0.10 to 0.12. The format is not a
documented interface, but exported programs must stay readable, so fields are only ever added.

The messages, with field numbers:

    any call   1 kernel call, 3 metadata, 4 name
    call       1 kernel, 2 3 4 grid, 5 parameter (repeated)
    kernel     1 name, 2 warps, 3 shared bytes, 4 PTX, 5 TTIR, 6 compute capability,
               10 blocks per cluster, 11 image, 12 scratch bytes, 13 scratch alignment
    image      1 machine code, 2 name, 3 shared bytes
    parameter  one of 1 array {1 bytes to zero, 2 pointer divisibility}, 2 bool, 3 i32, 4 u32,
               5 i64, 6 u64, 7 f32, 8 f64

>>> scalar("i32", -1).hex()
'18ffffffffffffffffff01'
>>> array(bytes_to_zero=0, divisibility=16).hex()
'0a021010'
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence

#: Scalar types: field number of the parameter message, and range (integers).
_INTEGERS = {
    "i1": (2, 0, 1),
    "i32": (3, -(2**31), 2**31 - 1),
    "u32": (4, 0, 2**32 - 1),
    "i64": (5, -(2**63), 2**63 - 1),
    "u64": (6, 0, 2**64 - 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """The kernel message. `image` is machine code; without it jaxlib compiles `ptx`."""

    name: str
    num_warps: int
    num_ctas: int
    shared: int
    ptx: str
    compute_capability: int
    ttir: str = ""
    image: bytes | None = None
    scratch_size: int | None = None
    scratch_align: int | None = None

    def encode(self) -> bytes:
        """The serialised message."""
        return b"".join(
            (
                _text(1, self.name),
                _number(2, self.num_warps),
                _number(3, self.shared),
                _text(4, self.ptx),
                _text(5, self.ttir),
                _number(6, self.compute_capability),
                # Explicitly present fields are written even where they hold the default.
                _present(10, self.num_ctas),
                b"" if self.image is None else _bytes(11, self._image(self.image)),
                b"" if self.scratch_size is None else _present(12, self.scratch_size),
                b"" if self.scratch_align is None else _present(13, self.scratch_align),
            )
        )

    def _image(self, code: bytes) -> bytes:
        return _bytes(1, code) + _text(2, self.name) + _number(3, self.shared)


def call(
    kernel: Kernel, grid: tuple[int, int, int], parameters: Sequence[bytes], name: str
) -> bytes:
    """A whole call. `parameters` come from `array` and `scalar`, in the kernel's order."""
    body = _bytes(1, kernel.encode())
    body += b"".join(_number(field, size) for field, size in enumerate(grid, start=2))
    body += b"".join(_bytes(5, parameter) for parameter in parameters)
    return _bytes(1, body) + _text(4, name)


def array(bytes_to_zero: int, divisibility: int) -> bytes:
    """A buffer: the next operand or result. Zeroed before the launch where the number is not 0."""
    return _bytes(1, _number(1, bytes_to_zero) + _number(2, divisibility))


def scalar(kind: str, value: bool | int | float) -> bytes:
    """A number passed by value.

    Raises:
      ValueError: `kind` is no scalar type, or cannot hold `value`.
    """
    if kind in _INTEGERS:
        field, low, high = _INTEGERS[kind]
        if value != int(value) or not low <= value <= high:
            raise ValueError(f"{kind} cannot hold {value}")
        return _present(field, int(value))
    packing: dict[str, tuple[int, Callable[[float], bytes]]] = {
        "fp32": (7 << 3 | 5, lambda v: struct.pack("<f", v)),
        "fp64": (8 << 3 | 1, lambda v: struct.pack("<d", v)),
    }
    if kind not in packing:
        raise ValueError(f"{kind} is not a scalar type that jaxlib can pass")
    key, pack = packing[kind]
    return _varint(key) + pack(float(value))


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers are written as their 64-bit complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _present(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _number(field: int, value: int) -> bytes:
    return _present(field, value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode()) if value else b""
