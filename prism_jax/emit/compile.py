"""Triton source in, a kernel's machine code out. Needs no GPU.

With `interpret.py` and its `corrections.py` the only files that touch Triton's internals. None of
them imports Triton into the user's process: they work in worker processes (`workers.py`), because
LLVM aborts the process on a failed assertion, because that is how compiling runs in parallel, and
because interpreting spoils a process for compiling.

In: a `KernelSource`. Out: a `Binary`, or a `CompileError` for that kernel alone.

Invariants: neither a path, nor the time, nor the process enters the code, so equal sources give
equal binaries, byte for byte, in every process; a binary's numbers come from what was compiled, not
from what was asked for (warp specialisation raises `num_warps`).

Traps that this file knows:
* Without `tt.divisibility` on pointers there is no asynchronous copy: a matmul got 32 kB of shared
  memory instead of 96 and twice the code. All pointers are declared 16-byte aligned unless
  `divisibility` says otherwise; XLA's buffers are, and jaxlib checks it at every launch.
* `jax_triton` 0.3 sets TRITON_CACHE_DIR to "" for the whole process, with which Triton cannot
  compile. Each compile here has a folder of its own, unless the user named one.
* Triton reads a kernel's text through `inspect`, which needs a file: `linecache` serves it one that
  exists in memory only, under a name that is the same everywhere (the debug sections contain it).
"""

from __future__ import annotations

import contextlib
import itertools
import linecache
import os
import sys
import tempfile
import threading
import time
import types
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from prism_jax.emit.binary import Binary, KernelSource, blocks_per_sm, fits, pointer_type
from prism_jax.emit.cubin import resources
from prism_jax.emit.entry import without_unread
from prism_jax.emit.workers import Kind, Pool, TargetError, TimeLimitError, WorkerError

__all__ = [
    "Binary",
    "CompileError",
    "KernelSource",
    "blocks_per_sm",
    "close_workers",
    "compile_each",
    "compile_kernel",
    "compile_many",
    "fits",
    "pointer_type",
    "prepare",
]

#: Seconds that one kernel may take. The slowest of 108 configurations of a matmul took 3.
TIMEOUT_SECONDS = 60.0


class CompileError(Exception):
    """One kernel did not compile. `kernel` is its name; `detail` the compiler's own words; `late`
    says that only a deadline passed: another time it may compile.
    """

    def __init__(self, kernel: str, message: str, detail: str = "", *, late: bool = False) -> None:
        super().__init__(f"kernel {kernel} does not compile: {message}")
        self.kernel = kernel
        self.detail = detail
        self.late = late


def compile_kernel(
    source: KernelSource, compute_capability: int, timeout: float = TIMEOUT_SECONDS
) -> Binary:
    """`source` for a device of `compute_capability` (10 * major + minor), in a worker.

    Raises:
      CompileError: it did not compile, crashed the compiler, or took more than `timeout` seconds.
    """
    (result,) = compile_many([source], compute_capability, workers=1, timeout=timeout)
    if isinstance(result, CompileError):
        raise result
    return result


def compile_many(
    sources: Sequence[KernelSource],
    compute_capability: int,
    *,
    workers: int,
    timeout: float = TIMEOUT_SECONDS,
    deadline: float | None = None,
) -> list[Binary | CompileError]:
    """What `compile_each` gives, in the order of `sources`."""
    made = dict(
        compile_each(
            sources, compute_capability, workers=workers, timeout=timeout, deadline=deadline
        )
    )
    return [made[source] for source in sources]


def compile_each(
    sources: Iterable[KernelSource],
    compute_capability: int,
    *,
    workers: int,
    timeout: float = TIMEOUT_SECONDS,
    deadline: float | None = None,
) -> Iterator[tuple[KernelSource, Binary | CompileError]]:
    """Each of `sources` with what became of it, in order, as soon as it and those before it are
    there; a failure is only that kernel's.

    Args:
      sources: the kernels; equal ones are compiled once. The first is compiled while the others
        are being made.
      compute_capability: 10 * major + minor.
      workers: processes that compile at once.
      timeout: seconds for each kernel.
      deadline: `time.monotonic()` after which nothing is waited for.
    """
    asked: dict[KernelSource, None] = {}

    def calls() -> Iterator[tuple[KernelSource, int]]:
        for source in sources:
            if source not in asked:
                asked[source] = None
                yield source, compute_capability

    results = _pool.map(
        f"{__name__}:compile_here", calls(), workers=workers, timeout=timeout, deadline=deadline
    )
    first = list(itertools.islice(results, 1))  # now all are asked for
    for source, result in zip(asked, itertools.chain(first, results), strict=True):
        over = deadline is not None and time.monotonic() >= deadline
        failed = isinstance(result, WorkerError)
        yield source, _explain(source, result, over) if failed else result


def prepare(compute_capability: int, workers: int) -> None:
    """Start `workers` workers in the background and have each compile a trivial kernel.

    The first compile of a process takes half a second longer than the next; called before a search
    starts, this hides it. Returns at once and never raises.
    """

    def one() -> None:
        with contextlib.suppress(WorkerError):
            target = f"{__name__}:compile_here"
            _pool.run(target, _TRIVIAL, compute_capability, timeout=TIMEOUT_SECONDS)

    for _ in range(workers):
        threading.Thread(target=one, name="prism-prepare", daemon=True).start()


_TRIVIAL = KernelSource(
    name="trivial",
    text="import triton\n\n\n@triton.jit\ndef trivial(x_ptr):\n    pass\n",
    signature=(("x_ptr", "*fp32"),),
)


def close_workers() -> None:
    """End the compile workers now; they end by themselves after a minute without work."""
    _pool.close()


def worker_environment() -> dict[str, str]:
    """The environment of a worker: this process's, without what would change or break the code."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    environment.pop("TRITON_INTERPRET", None)
    if not environment.get("TRITON_CACHE_DIR"):
        environment.pop("TRITON_CACHE_DIR", None)
    return environment


#: As many workers as there are cores: the user's process, XLA's compiler in it and the worker that
#: measures go first. The gradient of attention waited 7 s for XLA's own version beside 14 workers.
NICENESS = 5
_pool = Pool(worker_environment, Kind(niceness=NICENESS))


def _explain(source: KernelSource, error: WorkerError, over: bool) -> CompileError:
    if isinstance(error, TargetError) and error.kind in ("ModuleNotFoundError", "ImportError"):
        return CompileError(source.name, f"triton cannot be imported ({error})", error.detail)
    # Triton's front end shows the line of the kernel in the message itself; keep it whole.
    late = over and isinstance(error, TimeLimitError)
    return CompileError(source.name, str(error), error.detail, late=late)


# The rest runs in workers only.


def load(source: KernelSource) -> Any:
    """The `@triton.jit` object that `source.text` defines. Imports triton; for workers.

    Raises:
      ValueError: no such function, or its parameters are not those of the signature.
    """
    filename = f"prism_jax/kernels/{source.name}.py"
    # An entry without a modification time is never checked against the disk.
    lines = source.text.splitlines(keepends=True)
    linecache.cache[filename] = (len(source.text), None, lines, filename)
    module = types.ModuleType(f"prism_kernel_{source.digest[:16]}")
    module.__file__ = filename
    sys.modules[module.__name__] = module  # `inspect` looks a function's module up here
    exec(compile(source.text, filename, "exec"), module.__dict__)
    function = getattr(module, source.name, None)
    names = list(getattr(function, "arg_names", ()))
    expected = [name for name, _ in source.signature]
    if names != expected:
        raise ValueError(f"the text defines {source.name}{tuple(names)}, expected {expected}")
    return function


def compile_here(source: KernelSource, compute_capability: int) -> Binary:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = load(source)
    tree = ASTSource(
        fn=function,
        signature=dict(source.signature),
        constexprs=dict(source.constexprs),
        attrs=source.attributes,
    )
    options = {
        "num_warps": source.num_warps,
        "num_stages": source.num_stages,
        "num_ctas": source.num_ctas,
        **dict(source.options),
    }
    with _cache_folder(), _lean_entry(source):
        target = GPUTarget("cuda", compute_capability, 32)
        kernel = triton.compile(tree, target=target, options=options)
    metadata = kernel.metadata
    if getattr(metadata, "tensordesc_meta", None):
        raise ValueError("descriptors as parameters cannot be launched; make them in the kernel")
    need = resources(kernel.asm["cubin"], metadata.name)
    return Binary(
        name=metadata.name,
        compute_capability=compute_capability,
        parameters=source.parameters,
        pointer_divisibility=source.pointer_divisibility,
        ptx=kernel.asm["ptx"],
        cubin=kernel.asm["cubin"],
        shared=metadata.shared,
        num_warps=metadata.num_warps,
        num_ctas=metadata.num_ctas,
        registers=need.registers,
        stack=need.stack,
        scratch_size=metadata.global_scratch_size or 0,
        scratch_align=metadata.global_scratch_align or 1,
    )


@contextlib.contextmanager
def _lean_entry(source: KernelSource) -> Generator[None]:
    # Between PTX and machine code the scratch pointers go that the kernel does not read (`entry`).
    # Triton offers this hook for looking at its stages; without it kernels keep the pointers, and
    # are launched by the route that passes them.
    from triton import knobs

    def hook(_backend: Any, stages: dict[str, Any], *_: Any) -> None:
        made = stages["ptx"]
        stages["ptx"] = lambda src, metadata: without_unread(
            made(src, metadata), source.name, len(source.parameters)
        )

    runtime: Any = knobs.runtime  # its types miss the first argument
    runtime.add_stages_inspection_hook = hook
    try:
        yield
    finally:
        runtime.add_stages_inspection_hook = None


@contextlib.contextmanager
def _cache_folder() -> Generator[None]:
    # Tuning compiles hundreds of candidates that nobody asks for again; the winners are in our own
    # cache. A folder that the user named is used, and filled.
    if os.environ.get("TRITON_CACHE_DIR"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="prism-triton-") as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["TRITON_CACHE_DIR"]
