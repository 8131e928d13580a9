"""Kernels launched through jax-triton, where the installed versions allow it.

In: a `KernelSource`. Out: the same kind of function as `cuda.kernel_call` gives. jax-triton
compiles the source again, in this process, while JAX lowers; so this route is for kernels that were
never compiled here (no tuning, no cache), and `cuda.kernel_call` is for all others.

`probe` finds out by trying: jax-triton breaks with about every other minor version of jax or triton
(0.4 needs Python 3.12; 0.4.1 imports but does not lower with jax 0.12; 0.3 lowers everywhere, but
to the target `triton_kernel_call`, which XLA never captures: 4.3 to 5.9 us a call instead of 2.9).
It is used where it lowers to the same target as `cuda.py`, for kernels whose meaning it keeps:

* no scalars (it types them by value and makes every 1 a constant), no zeroed and no aliased outputs
  (its two lines of versions differ), no alignment but its own 16 bytes;
* no warp specialisation: it launches with the warps asked for, not those compiled for.

Its calls hold PTX and TTIR, those of `cuda.py` machine code or PTX, so a program's HLO differs
by route; a process that must find it in jax's persistent cache takes the same route each time.

Traps: importing jax_triton 0.3 sets TRITON_CACHE_DIR to "", 0.4 deletes it; both are undone here.
jax_triton 0.4 on triton 3.6 looks for a constant that came later and, failing that, replaces its
whole NVIDIA back end by a stub; the constant is supplied before the import.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

import jax
import numpy as np

from prism_jax.emit.binary import Binary, KernelSource, pointer_type
from prism_jax.emit.compile import compile_kernel, load
from prism_jax.launch.cuda import TARGET, ArrayType, Kernel, kernel_call

_PROBE = KernelSource(
    name="prism_probe",
    text=(
        "import triton\nimport triton.language as tl\n\n\n"
        "@triton.jit\ndef prism_probe(x_ptr, y_ptr, size: tl.constexpr):\n"
        "    i = tl.arange(0, size)\n"
        "    tl.store(y_ptr + i, tl.load(x_ptr + i))\n"
    ),
    signature=(("x_ptr", "*fp32"), ("y_ptr", "*fp32"), ("size", "constexpr")),
    constexprs=(("size", 128),),
)


@dataclasses.dataclass(frozen=True)
class Probe:
    """What jax-triton can do here.

    Attributes:
      version: the installed version, "" for none.
      target: the custom call that it lowers to, "" where it cannot lower.
      reason: why it is not used, "" where it is.
    """

    version: str
    target: str
    reason: str


def call(
    code: Binary | KernelSource,
    compute_capability: int,
    grid: Sequence[int],
    out_types: Sequence[ArrayType],
    scalars: Sequence[bool | int | float] = (),
    zeroed: Sequence[int] = (),
    aliases: Mapping[int, int] | None = None,
) -> Kernel:
    """A kernel as a function of its input arrays, by whichever route fits.

    A `Binary` goes straight to XLA. A `KernelSource` goes through jax-triton where `probe` allows
    and jax-triton keeps the kernel's meaning; else a worker compiles it and it goes straight too.
    The other arguments are those of `cuda.kernel_call`.

    Raises:
      ValueError: the arguments do not fit the kernel.
      CompileError: the source does not compile.
    """
    if isinstance(code, KernelSource):
        if not (scalars or zeroed or aliases or _beyond(code) or probe().reason):
            return jax_triton_call(code, compute_capability, grid, out_types)
        code = compile_kernel(code, compute_capability)
    return kernel_call(code, grid, out_types, scalars, zeroed, aliases)


def jax_triton_call(
    source: KernelSource,
    compute_capability: int,
    grid: Sequence[int],
    out_types: Sequence[ArrayType],
) -> Kernel:
    """`source` as a function of its input arrays, through `jax_triton.triton_call`.

    Raises:
      ValueError: a kernel that jax-triton would change (see the module's text), or types that do
        not fit its signature.
      ImportError: jax-triton or triton is not installed.
    """
    reason = _beyond(source)
    if reason:
        raise ValueError(f"kernel {source.name} cannot go through jax-triton: {reason}")
    inputs = len(source.parameters) - len(out_types)
    results = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in out_types]
    library = _import_jax_triton()
    function = load(source)

    def kernel(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        types = tuple(pointer_type(np.dtype(a.dtype)) for a in (*arrays, *results))
        if len(arrays) != inputs or types != source.parameters:
            raise ValueError(f"kernel {source.name} takes {source.parameters}, not {types}")
        options: dict[str, Any] = dict(source.constexprs)
        # 0.4 renamed the first and moved what is in `options` of the source to the second.
        if hasattr(library.triton_lib, "CUSTOM_CALL_TARGET_NAME"):
            options.update(out_type=results, backend_options=dict(source.options))
        else:
            options.update(out_shape=results, **dict(source.options))
        outputs = library.triton_call(
            *arrays,
            kernel=function,
            grid=tuple(grid),
            name=source.name,
            num_warps=source.num_warps,
            num_stages=source.num_stages,
            num_ctas=source.num_ctas,
            compute_capability=compute_capability,
            **options,
        )
        return tuple(outputs)

    return kernel


@functools.cache
def probe() -> Probe:
    """Whether the installed jax, triton and jax-triton lower a kernel together.

    Found out by doing it, once in each process (under a second). Needs no GPU.
    """
    try:
        version = metadata.version("jax-triton")
    except metadata.PackageNotFoundError:
        return Probe("", "", "jax-triton is not installed")
    vector = jax.ShapeDtypeStruct((128,), np.dtype("float32"))
    try:
        kernel = jax_triton_call(_PROBE, 80, (1,), (vector,))
        lowered = jax.jit(kernel).trace(vector).lower(lowering_platforms=("cuda",))
        found = re.search(r"custom_call @(\w+)", lowered.as_text())
    except Exception as error:  # whatever it is, it says that these versions do not fit
        text = str(error).strip()
        reason = f"jax-triton {version} does not lower here: {type(error).__name__} {text}"
        return Probe(version, "", reason.splitlines()[0])
    target = found.group(1) if found else ""
    if target != TARGET:
        return Probe(version, target, f"jax-triton {version} launches through {target!r}")
    return Probe(version, target, "")


def _beyond(source: KernelSource) -> str:
    """What of `source` jax-triton would not keep, "" for nothing."""
    if any(not kind.startswith("*") for kind in source.parameters):
        return "it has scalar parameters"
    if any(divisor != 16 for divisor in source.pointer_divisibility):
        return "its pointers are not 16-byte aligned"
    if "warp_specialize" in source.text:
        return "its warps are specialised"
    if {name for name, _ in source.options} - {"enable_fp_fusion"}:
        return "it has compiler options"
    return ""


def _import_jax_triton() -> Any:
    folder = os.environ.get("TRITON_CACHE_DIR")
    driver = import_module("triton.backends.nvidia.driver")
    if not hasattr(driver, "TMA_TF32"):
        driver.__dict__["TMA_TF32"] = 11
    try:
        library = import_module("jax_triton")
        import_module("jax_triton.triton_lib")
    finally:
        if folder is None:
            os.environ.pop("TRITON_CACHE_DIR", None)
        else:
            os.environ["TRITON_CACHE_DIR"] = folder
    return library
