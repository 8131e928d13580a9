"""Compiled kernels launched by XLA itself, as it launches its own.

In: a `Binary` that takes pointers and nothing else. Out: a call for the custom-call target that XLA
turns into a kernel launch: a node of its own in a CUDA graph, without any code between XLA and the
driver. jaxlib's FFI target (`cuda.py`) is captured too, as a graph inside the graph; on an H100 a
20-call chain of a 4 us product cost 12 us a call that way and 4.6 us this way (measured, jax
0.11.2).

XLA documents the target for PTX. What it is given goes to the driver as it is, which takes machine
code in the same place (cuModuleLoadDataEx: "a cubin, PTX or fatbin"): nothing is compiled again.
That both hold is known for the jaxlib versions from `SINCE` on; before, and for kernels that need
more (scalars, zeroed results, scratch memory, clusters), the FFI target serves.

Trap: in a compiled program that is stored, as by jax's persistent cache, XLA keeps the code as
text, and what is no text makes the whole entry unreadable for the next process (a warning and a
compilation each time; jaxlib 0.11.2). `kernel_type="cubin"` is parsed there, but no kernel made of
it. So where that cache is on, the driver gets PTX, which it compiles once and remembers itself. On
an H200 five kernels ran as fast either way; each took the driver 0.1 to 0.3 s. A driver that is
older than the PTX gets the machine code by the FFI target, which XLA stores well.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prism_jax import compat
from prism_jax.emit import entry
from prism_jax.emit.binary import Binary

TARGET = "__gpu$xla.gpu.ptx"
#: The first released jaxlib on which machine code in the place of PTX was run.
SINCE = (0, 11, 2)
#: The version of CUDA whose driver is the first to read a version of PTX (PTX ISA, release notes);
#: later ones read what their own number says, at least.
READ_SINCE = {(8, minor): 12000 + 10 * minor for minor in range(6)} | {
    (8, 6): 12070, (8, 7): 12080, (8, 8): 12090,
}  # fmt: skip


def able(binary: Binary) -> bool:
    """Whether `binary` can be launched with the addresses of its arrays alone."""
    return (
        all(kind.startswith("*") for kind in binary.parameters)
        and binary.num_ctas == 1
        and not binary.scratch_size
        and len(entry.parameters(binary.ptx, binary.name)) == len(binary.parameters)
    )


def readable(binary: Binary) -> bool:
    """Whether the driver here takes the text that `call` would give it; a machine without a driver
    is taken to prepare for one that does.
    """
    if not compat.stores_programs() or (served := driver()) is None:
        return True
    version = re.search(r"^\.version (\d+)\.(\d+)", binary.ptx, re.MULTILINE)
    if version is None:
        return False
    major, minor = int(version[1]), int(version[2])
    return served >= READ_SINCE.get((major, minor), 1000 * (major + 4) + 10 * minor)


@functools.cache
def driver() -> int | None:
    """The newest CUDA that the installed driver serves, as 1000 * major + 10 * minor."""
    found = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    except (OSError, AttributeError):
        return None
    return None if failed else found.value


def call(
    binary: Binary,
    grid: tuple[int, int, int],
    results: Sequence[jax.ShapeDtypeStruct],
    aliases: Mapping[int, int] | None,
) -> Callable[..., Sequence[Any]]:
    """The launch as a function of arrays; arguments as for `cuda.kernel_call`, checked there."""
    sizes = {
        **dict(zip(("grid_x", "grid_y", "grid_z"), grid, strict=True)),
        **dict(zip(("block_x", "block_y", "block_z"), (32 * binary.num_warps, 1, 1), strict=True)),
        "shared_mem_bytes": binary.shared,
    }
    target = jax.ffi.ffi_call(TARGET, results, input_output_aliases=dict(aliases or {}) or None)

    def launch(*arrays: Any) -> Sequence[Any]:
        return target(
            *arrays,
            name=binary.name,
            kernel_type="ptx",
            kernel_data=binary.ptx.encode() if compat.stores_programs() else binary.cubin,
            **{name: np.int32(size) for name, size in sizes.items()},
        )

    return launch
