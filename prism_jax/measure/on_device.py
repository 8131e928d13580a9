"""The worker's side of measuring: runs kernels that nobody trusts yet. Imported in workers only.

In: launches, the types of their inputs. Out: for each its duration and a sketch of what it wrote.
`warm` and `start` come first, `build` compiles one batch, `probe` or `read` runs it.

The kernels of a batch run one after the other in one compiled chain under one profile: tracing and
profiling each alone would cost a hundred times what they run. Their results start as zeros, so that
a kernel that leaves some of them unwritten cannot inherit a neighbour's.

Traps that this file knows:
* XLA reads its memory limit from the environment when jax is imported, and a user's process has
  most of the memory already: the limit is made from what the driver says is free.
* After an illegal access every later call fails, whoever makes it: after an error, a trivial
  operation tells whether this process is lost (`ContextLostError`) or just that batch.
* The profile also lists what XLA adds (copies, fills): kernels are told apart by name.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from prism_jax.ir.nodes import Tensor
from prism_jax.launch.value import Launch
from prism_jax.measure.inputs import Kind, kinds, values
from prism_jax.measure.sketch import PLACES, Reading, Sketch

#: Iterations of one profile, and the seconds after which fewer do.
ITERATIONS, PROFILE_SECONDS = 7, 2.0
#: Results up to this size are copied whole to be sampled; a gather would first be compiled.
SMALL_BYTES = 4 * 2**20
#: Bytes of each input that are compared with the original afterwards.
COMPARED_BYTES = 16 * 2**20
PROFILER = "jax.experimental.mosaic.gpu.profiler"
#: Share of the free memory that measuring may use, if it is not told how much.
SHARE, MOST_BYTES = 0.25, 2 * 2**30
#: Of what a batch may take, what inputs may take beside it that a later one may read: kernels of a
#: program share their inputs' shapes, and to draw and send 100 MB takes longer than to time them.
KEPT_SHARE = 0.5


class ContextLostError(Exception):
    """This process cannot use the device any more."""


class ProfileError(Exception):
    """Kernel durations cannot be had here, whatever the kernels."""


class OverwrittenError(Exception):
    """A kernel changed its inputs."""


@dataclasses.dataclass
class _Batch:
    run: Any
    launches: Sequence[Launch]
    tensors: tuple[Tensor, ...]
    inputs: Sequence[_Input]
    room: int

    @property
    def arrays(self) -> list[Any]:
        return [one.device for one in self.inputs]


@dataclasses.dataclass
class _Input:
    host: np.ndarray[Any, Any]
    device: Any


_limit: int | None = None
_kept: dict[Kind, _Input] = {}
"""What was read last stands last."""
_batch: _Batch | None = None


def warm() -> None:
    """Imports what `start` needs, without touching the device."""
    import_module(PROFILER)


def start(memory_bytes: int | None) -> int:
    """Prepares jax on the device; the bytes that a batch may take. Later calls only answer.

    Raises:
      RuntimeError: jax finds no GPU here.
    """
    global _limit
    if _limit is None:
        free, total = _device_memory()
        most = min(int(SHARE * free), memory_bytes or MOST_BYTES)
        limit = int(most / (1 + KEPT_SHARE))
        # Some is XLA's own: constants, scratch memory, what fragments.
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{(most + 2**28) / total:.6f}"
        import jax

        if jax.default_backend() != "gpu":
            raise RuntimeError(f"jax runs on {jax.default_backend()} in the worker process")
        _alive()
        _limit = limit
    return _limit


def build(launches: Sequence[Launch], inputs: tuple[Tensor, ...], room: int) -> None:
    """Compiles the launches as one chain over random `inputs`; `room` bytes may hold results."""
    import jax

    global _batch
    _batch = None
    calls = [launch.call(zeroed=True) for launch in launches]
    names = [tensor.name for tensor in inputs]
    wheres = [[names.index(tensor.name) for tensor in launch.operands] for launch in launches]

    def chained(args: Sequence[Any]) -> list[Any]:
        outputs: list[Any] = []
        for call, where in zip(calls, wheres, strict=True):
            if outputs:
                outputs[-1], args = jax.lax.optimization_barrier((outputs[-1], args))
            outputs.append(call(*(args[n] for n in where)))
        return outputs

    read = _read(inputs)
    arrays = [one.device for one in read]
    _batch = _Batch(jax.jit(chained).lower(arrays).compile(), launches, inputs, read, room)


def probe() -> None:
    """Runs the batch once.

    Raises:
      ContextLostError: it took the device away from this process.
      OverwrittenError: it wrote into its inputs.
      jax.errors.JaxRuntimeError: it does not run.
    """
    _checked(_built())


def read() -> list[Reading]:
    """Runs the batch, samples its results, profiles it. Raises as `probe` does, or ProfileError."""
    batch = _built()
    outputs, seconds = _checked(batch)
    sketches = [_sketch(launch, o) for launch, o in zip(batch.launches, outputs, strict=True)]
    written = sum(array.nbytes for results in outputs for array in results)
    del outputs
    # The profiler keeps the results of all iterations, and of one more to warm up.
    fitting = min(batch.room // max(1, written) - 1, int(PROFILE_SECONDS / max(seconds, 1e-6)))
    rows = _profile(batch, max(1, min(ITERATIONS, fitting)))
    times = [statistics.median(row[n] for row in rows) * 1e-3 for n in range(len(sketches))]
    return [Reading(s, sketch) for s, sketch in zip(times, sketches, strict=True)]


def _built() -> _Batch:
    if _batch is None:
        raise RuntimeError("nothing was built in this process")
    return _batch


def _finish(batch: _Batch) -> Any:
    import jax

    try:
        return jax.block_until_ready(batch.run(batch.arrays))
    except Exception as error:
        _kept.clear()  # what ran may have written anywhere, and memory may be short
        _check(error)
        raise


def _checked(batch: _Batch) -> tuple[Any, float]:
    """Results, and the seconds of the run. It runs again with new inputs if they are not what they
    were: an earlier batch may have written into them, while it was profiled or they were only kept.

    A write past a kernel's own results often stays within memory that is this process's, and then
    nothing else notices.
    """
    outputs, seconds = _timed(batch)
    if not all(map(_unchanged, batch.inputs)):
        del outputs
        _kept.clear()
        batch.inputs = ()
        batch.inputs = _read(batch.tensors)
        outputs, seconds = _timed(batch)
        if not all(map(_unchanged, batch.inputs)):
            _kept.clear()
            raise OverwrittenError("wrote into its inputs")
    return outputs, seconds


def _timed(batch: _Batch) -> tuple[Any, float]:
    start = time.perf_counter()
    return _finish(batch), time.perf_counter() - start


def _check(error: Exception) -> None:
    """Raises ContextLostError if the device cannot be used after `error`."""
    try:
        _alive()
    except Exception:
        raise ContextLostError(str(error)) from error


def _alive() -> None:
    import jax

    jax.block_until_ready(jax.device_put(np.zeros(8, np.float32)) + 1)


def _profile(batch: _Batch, iterations: int) -> list[list[float]]:
    """Milliseconds of each launch, for each iteration."""
    try:
        profiler = import_module(PROFILER)
        measure = profiler.measure(batch.run, aggregate=False, iterations=iterations)
        seen = measure(batch.arrays)[1]
    except Exception as error:
        _check(error)
        if "iterations" in str(error):  # these kernels show differently in each
            raise
        raise ProfileError(f"{type(error).__name__}: {error}") from error
    if not seen:
        raise ProfileError("the profile is empty")
    names = [launch.binary.name for launch in batch.launches]
    rows = [
        [(name, ms) for name, ms in kernels if name in names]
        for kernels in (seen if iterations > 1 else [seen])
    ]
    for row in rows:
        if [name for name, _ in row] != names:
            kernels = [name for name, _ in (seen[0] if iterations > 1 else seen)]
            raise RuntimeError(f"the profile of {names} shows {kernels}")
    return [[ms for _, ms in row] for row in rows]


def _read(inputs: tuple[Tensor, ...]) -> list[_Input]:
    """The arrays of these inputs: those of an earlier batch where it had such inputs."""
    wanted = kinds(inputs)
    room = KEPT_SHARE * (_limit or MOST_BYTES)
    for kind in reversed([kind for kind in _kept if kind not in wanted]):
        size = _kept[kind].device.nbytes
        if size <= room:
            room -= size
        else:
            del _kept[kind]
    found: list[_Input] = []
    for kind in wanted:
        known = _kept.pop(kind, None)
        if known is None:
            known = _sent(values(kind))
        _kept[kind] = known
        found.append(known)
    return found


def _sent(host: np.ndarray[Any, Any]) -> _Input:
    import jax

    try:
        return _Input(host, jax.device_put(host))
    except Exception:
        _kept.clear()  # another try finds room
        raise


def _unchanged(one: _Input) -> bool:
    """Whether an input is what it was: of large ones both ends, which a stray write meets first."""
    host, array = one.host, one.device
    if array.nbytes <= COMPARED_BYTES:
        return _equal(host, array)
    rows = max(1, len(host) * COMPARED_BYTES // (2 * array.nbytes))
    return _equal(host[:rows], array[:rows]) and _equal(host[-rows:], array[-rows:])


def _equal(host: np.ndarray[Any, Any], array: Any) -> bool:
    return host.tobytes() == np.asarray(array).tobytes()


def _sketch(launch: Launch, outputs: Sequence[Any]) -> Sketch:
    found: list[np.ndarray[Any, Any]] = []
    for tensor, array in zip(launch.results, outputs, strict=True):
        if tensor.name in launch.partial:
            found.append(np.zeros(0))
            continue
        places = np.random.default_rng(0).integers(0, max(1, array.size), PLACES)
        if array.size <= PLACES:
            values = np.asarray(array).reshape(-1)
        elif array.nbytes <= SMALL_BYTES:
            values = np.asarray(array).reshape(-1)[places]
        else:
            values = np.asarray(array.reshape(-1)[places])
        found.append(_plain(values))
    return tuple(found)


def _plain(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values in a dtype that plain numpy has: the parent need not know jax's own."""
    return values if values.dtype.kind in "biuf" else values.astype(np.float32)


def _device_memory() -> tuple[int, int]:
    """Free and total bytes of the first visible GPU, from the driver.

    Raises:
      RuntimeError: the driver does not say.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise RuntimeError(f"there is no NVIDIA driver: {error}") from None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    steps = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        lambda: driver.cuCtxSetCurrent(context),
        lambda: driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)),
    )
    for step in steps:
        if status := step():
            raise RuntimeError(f"the GPU cannot be used by a second process: CUDA error {status}")
    return free.value, total.value
