"""Compiled kernels launched by XLA itself, as it launches its own.

In: a `Binary` that takes pointers and nothing else. Out: a call for the custom-call target that XLA
turns into a kernel launch: a node of its own in a CUDA graph, without any code between XLA and the
driver. jaxlib's FFI target (`cuda.py`) is captured too, as a graph inside the graph; on an H100 a
20-call chain of a 4 us product cost 12 us a call that way and 4.6 us this way (measured, jax
0.11.2).

XLA documents the target for PTX. What it is given goes to the driver as it is, which takes machine
code in the same place (cuModuleLoadDataEx: "a cubin, PTX or fatbin"), so nothing is compiled again.
That both hold is known for the jaxlib versions from `SINCE` on; before, and for kernels that need
more (scalars, zeroed results, scratch memory, clusters), the FFI target serves.

Trap: in a compiled program that jax's persistent cache stores, XLA keeps the code as text, and what
is no text makes the whole entry unreadable for the next process (a warning and a compilation each
time; jaxlib 0.11.2). `kernel_type="cubin"` is parsed there, but no kernel made of it. So where that
cache is on, the driver gets PTX, which it compiles once and remembers itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prism_jax.emit import entry
from prism_jax.emit.binary import Binary

TARGET = "__gpu$xla.gpu.ptx"
#: The first released jaxlib on which machine code in the place of PTX was run.
SINCE = (0, 11, 2)
#: Of jax, on which it depends whether it stores what it compiles.
SETTINGS = ("enable_compilation_cache", "compilation_cache_dir")


def able(binary: Binary) -> bool:
    """Whether `binary` can be launched with the addresses of its arrays alone."""
    return (
        all(kind.startswith("*") for kind in binary.parameters)
        and binary.num_ctas == 1
        and not binary.scratch_size
        and len(entry.parameters(binary.ptx, binary.name)) == len(binary.parameters)
    )


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
            kernel_data=binary.ptx.encode() if _stored() else binary.cubin,
            **{name: np.int32(size) for name, size in sizes.items()},
        )

    return launch


def _stored() -> bool:
    """Whether jax stores the programs that it compiles."""
    on, folder = (getattr(jax.config, f"jax_{n}") for n in SETTINGS)
    return bool(on and folder)
