"""Kernels that nobody trusts yet, timed in a process that may die.

In: launches that compete and the types of the tensors they read. Out: for each its seconds, or a
sentence: it touched memory that is not its own, did not return, wrote what the others did not.
A wrong kernel destroys the CUDA context of its process, and everything in that process fails from
then on; so kernels run in a worker first, and a plan whose kernels all ran there may run here.

One worker at a time, kept for the next call, and started by `prepare` in the background (jax and
CUDA need some three seconds). Its memory is bounded, whatever the user's process has taken.

Invariant: nothing that a kernel does reaches this process; no call outlasts its deadline by more
than it takes to kill a worker; the same launches get the same verdicts in the same order.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prism_jax.emit.workers import Kind, Pool, TargetError, TimeLimitError, WorkerError
from prism_jax.ir.nodes import Tensor
from prism_jax.launch.cuda import READS_IMAGES, jaxlib_version
from prism_jax.launch.value import Launch
from prism_jax.measure.sift import FailureError, HopelessError, Sieve
from prism_jax.measure.sketch import Reading, minority

#: Kernels that are timed in one chain.
BATCH = 16
#: Workers that one call may lose before it refuses what is left.
MOST_LOSSES = 6
#: Seconds for a worker to start; for a batch to be compiled, and to run; of the last, the share
#: that one kernel alone may take.
START_SECONDS, BUILD_SECONDS, RUN_SECONDS, ALONE = 60.0, 60.0, 6.0, 0.5
#: Seconds more for each kernel where the driver has to compile it first.
LOAD_SECONDS = 0.0 if jaxlib_version() >= READS_IMAGES else 1.0
#: What a worker imports from; nothing else of this package is run there.
ROOMS = ("emit", "ir", "launch", "measure")

_FAULTS = (
    (r"ILLEGAL_ADDRESS|illegal memory access", "illegal memory access"),
    (r"MISALIGNED_ADDRESS|misaligned address", "misaligned address"),
    (r"ILLEGAL_INSTRUCTION|illegal instruction", "illegal instruction"),
    (r"RESOURCE_EXHAUSTED|[Oo]ut of memory", "needs more memory than measuring may use"),
)


class DeviceWorker:
    """The process that runs untrusted kernels. Thread-safe; calls wait for each other.

    `target` is the module whose `start`, `build`, `probe` and `read` are called there, and
    `run_seconds` how long a batch may run.
    """

    def __init__(
        self,
        target: str = "prism_jax.measure.on_device",
        run_seconds: float = RUN_SECONDS,
        memory_bytes: int | None = None,
    ) -> None:
        self._target, self._run_seconds, self._memory = target, run_seconds, memory_bytes
        self._pool, self._spare = _pool(), _pool()
        self._warming: threading.Thread | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Start the worker in the background. Returns at once, never raises."""

        def begin() -> None:
            with self._lock, contextlib.suppress(WorkerError):
                self._pool.run(f"{self._target}:start", self._memory, timeout=START_SECONDS)

        threading.Thread(target=begin, name="prism-prepare-device", daemon=True).start()

    def close(self) -> None:
        """End the worker now; it ends by itself after a minute without work."""
        self._pool.close()
        if self._warming is not None:
            self._warming.join(START_SECONDS)  # a worker that is just starting cannot be closed
        self._spare.close()

    def forget(self) -> None:
        """For the child of a fork: whoever held the lock is not there."""
        self._lock, self._warming = threading.Lock(), None

    def kernel_seconds(
        self, launches: Sequence[Launch], inputs: Sequence[Tensor], deadline: float
    ) -> list[float | str]:
        """Seconds of each launch on the same random inputs, or why there are none.

        Args:
          launches: kernels that compete: of right ones, all write the same.
          inputs: the tensors they read, sizes as numbers; each launch picks its own by name.
          deadline: `time.monotonic()` after which nothing is waited for.

        Returns:
          In order: the median duration of the kernel, or a sentence.
        """
        if not launches:
            return []
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return ["not measured: no time left"] * len(launches)
        try:
            readings = self._readings(launches, tuple(inputs), deadline)
        finally:
            self._lock.release()
        return judged(launches, readings)

    def _readings(
        self, launches: Sequence[Launch], inputs: tuple[Tensor, ...], deadline: float
    ) -> list[Reading | str]:
        try:
            limit = self._start(deadline)
        except HopelessError as error:
            return [str(error)] * len(launches)
        room = limit - total_bytes(inputs)
        most = max(total_bytes(launch.results) for launch in launches)
        batch = min(BATCH, room // (2 * max(1, most)))
        if batch < 1:
            need = total_bytes(inputs) + 2 * most
            sentence = f"not measured: needs {need} bytes of the GPU, measuring may use {limit}"
            return [sentence] * len(launches)

        def build(some: Sequence[Launch]) -> None:
            self._start(deadline)  # in case the worker was lost and this is another
            arguments = (tuple(some), inputs, room)
            self._call("build", *arguments, limit=BUILD_SECONDS, deadline=deadline)

        def read(some: Sequence[Launch]) -> list[Reading]:
            build(some)
            seconds = self._run_seconds + LOAD_SECONDS * len(some)
            return self._call("read", limit=seconds, deadline=deadline)

        def probe(launch: Launch) -> None:
            build([launch])
            seconds = self._run_seconds * ALONE + LOAD_SECONDS
            self._call("probe", limit=seconds, deadline=deadline)

        sieve = Sieve(read, probe, deadline=deadline, most_losses=MOST_LOSSES)
        return sieve.run(launches, batch)

    def _start(self, deadline: float) -> int:
        """Bytes that arrays may take in the worker, once it has started. Raises HopelessError."""
        try:
            return self._call("start", self._memory, limit=START_SECONDS, deadline=deadline)
        except FailureError as error:
            raise HopelessError(f"not measured: no worker process: {error}") from error

    def _call(self, name: str, *arguments: Any, limit: float, deadline: float) -> Any:
        """A function of the target, in the worker.

        Raises:
          FailureError: it raised, or the worker died or was stopped; `lost` says which.
          HopelessError: it raised what no other batch could avoid, or there is no time left.
        """
        left = deadline - time.monotonic()
        if left <= 0.0:
            raise HopelessError("not measured: no time left")
        try:
            return self._pool.run(f"{self._target}:{name}", *arguments, timeout=min(limit, left))
        except TargetError as error:
            if error.kind == "OverwrittenError":
                raise FailureError("illegal write: its inputs have changed", lost=False) from error
            if error.kind == "ProfileError":
                raise HopelessError(f"not measured: {_first_line(error)}") from error
            lost = error.kind == "ContextLostError"
            if lost:
                self._replace(deadline)
            raise FailureError(_fault(error), lost=lost) from error
        except TimeLimitError as error:
            if limit >= left:
                raise HopelessError("not measured: no time left") from error
            self._replace(deadline)
            raise FailureError(f"did not return in {limit:g} s", lost=True) from error
        except WorkerError as error:
            self._replace(deadline)
            raise FailureError(_fault(error), lost=True) from error

    def _replace(self, deadline: float) -> None:
        """Puts the spare in the place of a lost worker, and has another made ready beside it.

        Where one kernel faults others often do. The spare has jax imported and leaves the device
        alone, so that it disturbs no measurement.
        """
        if self._warming is not None:
            self._warming.join(max(0.0, deadline - time.monotonic()))
        self._pool.close()
        spare = _pool()
        self._pool, self._spare = self._spare, spare

        def warm() -> None:
            with contextlib.suppress(WorkerError):
                spare.run(f"{self._target}:warm", timeout=START_SECONDS)

        self._warming = threading.Thread(target=warm, name="prism-prepare-spare", daemon=True)
        self._warming.start()


def judged(launches: Sequence[Launch], readings: Sequence[Reading | str]) -> list[float | str]:
    """The seconds of each reading; a sentence for those that wrote what most others did not."""
    found = [r if isinstance(r, str) else r.seconds for r in readings]
    groups: dict[tuple[Tensor, ...], list[tuple[int, Reading]]] = {}
    for number, (launch, reading) in enumerate(zip(launches, readings, strict=True)):
        if not isinstance(reading, str):
            groups.setdefault(launch.results, []).append((number, reading))
    for members in groups.values():
        for odd in minority([reading.sketch for _, reading in members]):
            found[members[odd][0]] = "wrong result: most kernels beside it agree on another"
    return found


def total_bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of these tensors together; their sizes are numbers."""
    return sum(math.prod(int(s) for s in t.shape) * np.dtype(t.dtype).itemsize for t in tensors)


def _fault(error: WorkerError) -> str:
    """One sentence for what happened, from the error's own words."""
    for pattern, sentence in _FAULTS:
        if re.search(pattern, f"{error} {error.detail}"):
            return sentence
    return _first_line(error)


def _first_line(error: WorkerError) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _pool() -> Pool:
    return Pool(_environment, Kind(rooms=ROOMS, memory_bytes=None))


def _environment() -> dict[str, str]:
    """This process's environment for a worker: one GPU, memory as needed, jax's defaults."""
    settings = ("JAX_", "XLA_PYTHON_CLIENT_", "XLA_CLIENT_")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(settings)}
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = _device_number()
    return environment | {
        "CUDA_VISIBLE_DEVICES": visible[number] if number < len(visible) else str(number),
        "JAX_PLATFORMS": "cuda",
        "JAX_ENABLE_X64": "1",  # every dtype as it is
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONHASHSEED": "0",
    }


def _device_number() -> int:
    """Which of the visible GPUs this process uses."""
    if jax.default_backend() != "gpu":
        return 0
    return int(getattr(jax.local_devices()[0], "local_hardware_id", 0) or 0)


_worker = DeviceWorker()
os.register_at_fork(after_in_child=_worker.forget)
kernel_seconds = _worker.kernel_seconds
prepare = _worker.prepare
close = _worker.close
