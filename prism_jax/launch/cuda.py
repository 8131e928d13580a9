"""Compiled kernels as JAX calls on NVIDIA GPUs.

In: a `Binary`, a grid and the types of the outputs. Out: a function of arrays that can be called
under `jax.jit` or given to `mlir.lower_fun`, several of them in a row too. It lowers on a machine
without a GPU; only running needs one.

The routes: a kernel that takes arrays and nothing else is launched by XLA itself (`native.py`);
others go through jaxlib's typed FFI target `triton_kernel_call_ffi`. Either is given the compiled
code (the first its PTX where jax stores programs) and can be captured in command buffers, and
neither triton nor jax_triton is imported. `jaxtriton.py` is for kernels of which there is only the
source.

Calling convention: the arrays are the kernel's first pointer parameters, the outputs its
last ones, scalars stand wherever the signature has them.

Traps that this file knows:
* jaxlib keys a loaded image by (name, shared bytes, PTX text, capability) and not by the machine
  code: two kernels of one name with an empty PTX field would run the first one's code. So the PTX
  field always identifies the code.
* jaxlib copies and hashes the PTX text at every launch outside a command buffer (several
  microseconds for 50 kB), so where it reads an image the text is only the digest.
* A launch with more than the device's shared memory fails only when it runs: ask `fits` first.

Invariant: equal arguments give equal HLO, byte for byte, in every process in which jax's persistent
cache is as much on.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol

import jax
import numpy as np

from prism_jax.emit.binary import Binary, pointer_type
from prism_jax.launch import native, wire

TARGET = "triton_kernel_call_ffi"
#: Targets of a kernel's call, whichever route it takes.
TARGETS = (native.TARGET, TARGET)
#: The first released jaxlib known to read machine code from the call.
READS_IMAGES = (0, 11, 2)
_GRID_LIMITS = (2**31 - 1, 65535, 65535)


class ArrayType(Protocol):
    """Shape and dtype of an output: `jax.ShapeDtypeStruct`, `jax.core.ShapedArray` or an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


Kernel = Callable[..., tuple[jax.Array, ...]]


def kernel_call(
    binary: Binary,
    grid: Sequence[int],
    out_types: Sequence[ArrayType],
    scalars: Sequence[bool | int | float] = (),
    zeroed: Sequence[int] = (),
    aliases: Mapping[int, int] | None = None,
    *,
    by_xla: bool | None = None,
) -> Kernel:
    """`binary` as a function of its input arrays that returns the tuple of its outputs.

    Args:
      binary: the kernel.
      grid: one to three numbers of blocks.
      out_types: shape and dtype of each output.
      scalars: values of the kernel's scalar parameters, in order.
      zeroed: numbers of the outputs that are set to zero before the launch.
      aliases: input number to output number: they share one buffer, which the kernel finds in both
        parameters. XLA copies the input first where it is used again.
      by_xla: launched by XLA itself. None: where the installed jaxlib and the kernel allow it.

    Raises:
      ValueError: anything that does not fit the kernel's signature, here or when arrays are given:
        a wrong launch corrupts memory, so nothing is taken on trust.
    """
    aliases = dict(aliases or {})
    blocks = _grid(grid)
    inputs = _check(binary, out_types, scalars, zeroed, aliases)
    results = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in out_types]
    pointers = [kind for kind in binary.parameters if kind.startswith("*")]
    able = native.able(binary) and not zeroed
    usual = jaxlib_version() >= native.SINCE and native.readable(binary)
    if by_xla and not able:
        raise ValueError(f"kernel {binary.name} needs more than arrays: XLA cannot launch it")
    if able and (usual if by_xla is None else by_xla):
        launch = native.call(binary, blocks, results, aliases)
    else:
        launch = _by_jaxlib(binary, blocks, results, scalars, zeroed, aliases)

    def call(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        if len(arrays) != inputs:
            raise ValueError(f"kernel {binary.name} takes {inputs} arrays, not {len(arrays)}")
        for number, (array, kind) in enumerate(zip(arrays, pointers, strict=False)):
            _same_type(binary, f"input {number}", array.dtype, kind)
        for source, target in aliases.items():
            if (arrays[source].shape, arrays[source].dtype) != (
                results[target].shape,
                results[target].dtype,
            ):
                raise ValueError(
                    f"kernel {binary.name}: input {source} and output {target} differ in type"
                )
        with jax.named_scope(binary.name):
            return tuple(launch(*arrays))

    return call


def _by_jaxlib(
    binary: Binary,
    grid: tuple[int, int, int],
    results: Sequence[jax.ShapeDtypeStruct],
    scalars: Sequence[bool | int | float],
    zeroed: Sequence[int],
    aliases: Mapping[int, int],
) -> Callable[..., Sequence[Any]]:
    inputs = sum(kind.startswith("*") for kind in binary.parameters) - len(results)
    sizes = [math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in results]
    zero_bytes = [0] * inputs + [n if i in zeroed else 0 for i, n in enumerate(sizes)]
    opaque = encode(binary, grid, scalars, zero_bytes)
    target = jax.ffi.ffi_call(TARGET, results, input_output_aliases=dict(aliases) or None)

    def launch(*arrays: Any) -> Sequence[Any]:
        register()
        return target(*arrays, opaque=opaque)

    return launch


def encode(
    binary: Binary,
    grid: tuple[int, int, int],
    scalars: Sequence[bool | int | float],
    zero_bytes: Sequence[int],
    *,
    image: bool | None = None,
) -> bytes:
    """The call's `opaque` attribute: the compressed message of `wire`.

    Args:
      binary: the kernel.
      grid: numbers of blocks.
      scalars: values of the scalar parameters, in order.
      zero_bytes: for each pointer parameter how many bytes to zero first.
      image: pass machine code instead of PTX. None: where the installed jaxlib reads it.
    """
    image = jaxlib_version() >= READS_IMAGES if image is None else image
    parameters: list[bytes] = []
    values, zeros = iter(scalars), iter(zero_bytes)
    for kind, divisibility in zip(binary.parameters, binary.pointer_divisibility, strict=True):
        if kind.startswith("*"):
            parameters.append(wire.array(next(zeros), divisibility if divisibility > 1 else 0))
        else:
            parameters.append(wire.scalar(kind, next(values)))
    kernel = wire.Kernel(
        name=binary.name,
        num_warps=binary.num_warps,
        num_ctas=binary.num_ctas,
        shared=binary.shared,
        ptx=f"// {binary.digest}" if image else binary.ptx,
        compute_capability=binary.compute_capability,
        image=binary.cubin if image else None,
        scratch_size=binary.scratch_size or None,
        scratch_align=binary.scratch_align if binary.scratch_size else None,
    )
    return zlib.compress(wire.call(kernel, grid, parameters, binary.name), 6)


@functools.cache
def jaxlib_version() -> tuple[int, ...]:
    """The installed jaxlib as numbers, for comparison."""
    return tuple(int(part) for part in metadata.version("jaxlib").split(".")[:3] if part.isdigit())


@functools.cache
def register() -> bool:
    """Make jaxlib's target known to XLA.

    False where the CUDA plugin is not installed: such a machine can lower the call, not run it.
    """
    from jaxlib import gpu_triton

    return hasattr(gpu_triton, "TritonKernel")


def _grid(grid: Sequence[int]) -> tuple[int, int, int]:
    if not 1 <= len(grid) <= 3:
        raise ValueError(f"a grid has one to three dimensions, not {len(grid)}")
    x, y, z = (*map(int, grid), *(1,) * (3 - len(grid)))
    for size, limit in zip((x, y, z), _GRID_LIMITS, strict=True):
        if not 1 <= size <= limit:
            raise ValueError(f"grid {tuple(grid)}: {size} is not between 1 and {limit}")
    return x, y, z


def _check(
    binary: Binary,
    out_types: Sequence[ArrayType],
    scalars: Sequence[bool | int | float],
    zeroed: Sequence[int],
    aliases: Mapping[int, int],
) -> int:
    """How many arrays the kernel takes. Raises ValueError for what does not fit it."""
    pointers = [kind for kind in binary.parameters if kind.startswith("*")]
    inputs = len(pointers) - len(out_types)
    name = f"kernel {binary.name}"
    if inputs < 0 or not out_types:
        raise ValueError(
            f"{name} has {len(pointers)} pointers, cannot have {len(out_types)} outputs"
        )
    if len(scalars) != len(binary.parameters) - len(pointers):
        raise ValueError(
            f"{name} takes {len(binary.parameters) - len(pointers)} scalars, not {len(scalars)}"
        )
    for number, (out, kind) in enumerate(zip(out_types, pointers[inputs:], strict=True)):
        _same_type(binary, f"output {number}", out.dtype, kind)
    if not all(0 <= number < len(out_types) for number in (*zeroed, *aliases.values())):
        raise ValueError(f"{name} has no such output: zeroed {zeroed}, aliases {dict(aliases)}")
    if not all(0 <= number < inputs for number in aliases):
        raise ValueError(f"{name} has {inputs} inputs, aliases are {dict(aliases)}")
    if set(zeroed) & set(aliases.values()) or len(set(aliases.values())) < len(aliases):
        raise ValueError(f"{name}: zeroed {zeroed} and aliases {dict(aliases)} overlap")
    return inputs


def _same_type(binary: Binary, which: str, dtype: Any, kind: str) -> None:
    if pointer_type(np.dtype(dtype)) != kind:
        raise ValueError(f"kernel {binary.name}: {which} is {np.dtype(dtype).name}, not {kind}")
