"""Worker processes: reused, time-limited, killable. Knows nothing of Triton or of the IR.

In: a target `"package.module:function"`, picklable arguments and a time limit. Out: what the
function returned, or one of three exceptions: it raised (`TargetError`), its process died
(`CrashError`: LLVM aborts on a failed assertion), or it took too long (`TimeLimitError`). The
caller's process survives all three, and only that one call is lost.

How a worker starts: as `python -c`, with the parent's `sys.path` and with empty stand-ins for the
packages above the target, so that neither jax nor `prism_jax/__init__.py` is imported there and the
user's `__main__` is not run again (which `multiprocessing` would do). Requests and answers are
pickles over pipes between a process and its own child: nothing is ever unpickled from a file.

How it ends: when its pool closes, when its standard input closes (its parent died), after
`IDLE_SECONDS` without work, by a timer of its own (the parent died while it worked), or killed with
its whole process group, so that a compiler it started dies too.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib
import json
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

#: A worker without work for this long ends itself; Triton and LLVM hold some 200 MB in each.
IDLE_SECONDS = 60.0
#: Address space of one worker that compiles. What allocates without end is stopped here, not by the
#: machine's out-of-memory killer, which might choose the user's process.
MEMORY_BYTES = 4 * 2**30
#: Seconds that a killed process gets to disappear; a driver may hold it while it frees a device.
_REAP_SECONDS = 5.0
#: How much later than the parent's limit the worker's own timer fires.
_GRACE_SECONDS = 10.0
_HEADER = struct.Struct("<Q")

_BOOT = """
import json, sys, types
package, folders, sys.path[:], rooms, *limits = json.loads(sys.argv[1])
for name in (package, *(package + "." + room for room in rooms)):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [folder + name[len(package):].replace(".", "/") for folder in folders]
from importlib import import_module
import_module(package + ".emit.workers").serve(*limits)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What the workers of a pool are like.

    Attributes:
      rooms: rooms of this package that targets import from. Stand-ins take the place of their
        `__init__`, so that a worker imports the modules it needs and nothing else.
      memory_bytes: address space, None for no limit (CUDA reserves more than any machine has).
      idle_seconds: without work for this long a worker ends itself.
      niceness: how much others go before it, as `os.nice` has it.
    """

    rooms: tuple[str, ...] = ("emit",)
    memory_bytes: int | None = MEMORY_BYTES
    idle_seconds: float = IDLE_SECONDS
    niceness: int = 0


class WorkerError(Exception):
    """A call in a worker did not return. The message is a sentence; `detail` is what it printed."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class TargetError(WorkerError):
    """The function raised; `kind` is the exception's class name and `detail` its traceback."""

    def __init__(self, kind: str, message: str, detail: str) -> None:
        super().__init__(f"{kind}: {message}" if message else kind, detail)
        self.kind = kind


class CrashError(WorkerError):
    """The worker's process died; `detail` is the end of its standard error."""


class TimeLimitError(WorkerError):
    """The worker was killed at its time limit, or the deadline passed before it could start."""


class _RetiredError(Exception):
    """An idle worker ended itself just as it was given work; another one must do it."""


class Worker:
    """One child process. `call` is for one thread at a time; `kill` is for any."""

    def __init__(self, environment: Mapping[str, str], kind: Kind) -> None:
        if not sys.executable:
            raise CrashError("no worker can be started: this interpreter has no executable")
        self._calls, self._killed = 0, False
        # Standard error goes to a file, not a pipe: nobody has to read it while the worker runs.
        self._errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        self._process = subprocess.Popen(
            _command(kind),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(environment),
            bufsize=0,
            # Its own group to kill, and no Ctrl-C; not a session: niceness counts within one only.
            process_group=0,
        )

    @property
    def alive(self) -> bool:
        """Whether it can be called: it was not killed, and the process still runs."""
        return not self._killed and self._process.poll() is None

    def call(self, target: str, *arguments: Any, timeout: float) -> Any:
        """What `target(*arguments)` returns in the worker, within `timeout` seconds.

        Raises:
          TargetError: the function raised.
          CrashError, TimeLimitError: see the classes; the worker is gone.
        """
        deadline = time.monotonic() + timeout
        request = pickle.dumps((target, arguments, timeout + _GRACE_SECONDS))
        reused, self._calls = self._calls > 0, self._calls + 1
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _write(self._process.stdin.fileno(), request, deadline)
            answer = _read(self._process.stdout.fileno(), deadline)
        except TimeoutError:
            self.close()
            raise TimeLimitError(f"stopped after {timeout:.1f} s") from None
        except (EOFError, OSError):
            raise self._death(reused) from None
        except BaseException:
            self.close()  # an interrupt: the answer that is under way would answer the next call
            raise
        returned, value = pickle.loads(answer)
        if returned:
            return value
        raise TargetError(*value)

    def kill(self) -> None:
        """End the process and everything that it started, now. Any thread may; `call` then ends."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_REAP_SECONDS)

    def close(self) -> None:
        """Kill, and close this side's ends of the pipes. Not while another thread is in `call`."""
        self.kill()
        self._close_streams()

    def forget(self) -> None:
        """Close this side's ends of the pipes and leave the child alone.

        For the child of a fork: the worker belongs to the process that was forked.
        """
        self._close_streams()
        self._process.returncode = 0  # or Popen warns that a child still runs

    def _close_streams(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _death(self, reused: bool) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5.0)
        self.kill()
        status = self._process.returncode
        self._errors.seek(0)
        text = self._errors.read()[-4000:].decode(errors="replace").strip()
        self._close_streams()
        if status == 0 and reused:
            return _RetiredError()
        if status is None:  # killed, but not gone yet
            status = -signal.SIGKILL
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        last = f": {text.splitlines()[-1]}" if text else ""
        return CrashError(f"the worker process ended with {how}{last}", text)


class Pool:
    """Workers with one environment, started when needed and kept for the next call. Thread-safe.

    `environment` is called for each new worker; `Pool(lambda: os.environ)` passes everything on.
    """

    def __init__(
        self, environment: Callable[[], Mapping[str, str]], kind: Kind | None = None
    ) -> None:
        self._environment, self._kind = environment, kind or Kind()
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        _pools.add(self)

    def run(self, target: str, *arguments: Any, timeout: float) -> Any:
        """`target(*arguments)` in a worker; `Worker.call` says what it raises."""
        while True:
            with self._borrow() as worker, contextlib.suppress(_RetiredError):
                return worker.call(target, *arguments, timeout=timeout)

    def map(
        self,
        target: str,
        calls: Iterable[tuple[Any, ...]],
        *,
        workers: int,
        timeout: float,
        deadline: float | None = None,
    ) -> Generator[Any | WorkerError]:
        """One call per element of `calls`, in order, at most `workers` at a time. All are begun
        before the first result is given; each result is given once those before it are.

        Args:
          target: `"package.module:function"`.
          calls: the arguments of each call; the first runs while the others are being made.
          workers: processes that run at once.
          timeout: seconds for each call.
          deadline: `time.monotonic()` after which nothing starts and what runs is stopped.

        Yields:
          For each call its value, or the `WorkerError` that it ended with.
        """

        def one(arguments: tuple[Any, ...]) -> Any | WorkerError:
            left = timeout if deadline is None else min(timeout, deadline - time.monotonic())
            if left <= 0.0:
                return TimeLimitError("not started: the deadline had passed")
            try:
                return self.run(target, *arguments, timeout=left)
            except WorkerError as error:
                return error

        executor = ThreadPoolExecutor(max_workers=max(1, workers))
        futures: list[Future[Any | WorkerError]] = []
        try:
            futures.extend(executor.submit(one, arguments) for arguments in calls)
            for future in futures:
                yield future.result()
        except BaseException:
            if not all(future.done() for future in futures):
                self.close()  # an interrupt, or nobody waits: threads end because workers do
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Kill every worker, busy ones too. The next call starts new ones."""
        with self._lock:
            idle, busy = list(self._idle), list(self._busy)
            self._idle.clear()
        for worker in idle:
            worker.close()
        for worker in busy:
            worker.kill()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        for worker in (*self._idle, *self._busy):
            worker.forget()
        self._idle, self._busy = [], set()

    @contextlib.contextmanager
    def _borrow(self) -> Generator[Worker]:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        while worker is not None and not worker.alive:
            worker.close()  # it retired: reap it
            with self._lock:
                worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = Worker(self._environment(), self._kind)
        with self._lock:
            self._busy.add(worker)
        try:
            yield worker
        finally:
            with self._lock:
                self._busy.discard(worker)
                if worker.alive:
                    self._idle.append(worker)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _close_pools() -> None:
    for pool in list(_pools):
        pool.close()


def _forget_pools() -> None:
    # A forked copy of the user's process must not talk through its parent's pipes.
    for pool in list(_pools):
        pool._forget()


os.register_at_fork(after_in_child=_forget_pools)


def serve(memory_bytes: int | None, idle_seconds: float, niceness: int) -> None:
    """A worker's life: read a request, answer it, until nobody asks any more."""
    os.nice(niceness)
    requests, answers = os.dup(0), os.dup(1)
    # What the compiler prints must not end up among the answers, nor read the requests.
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    if memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while _ready(requests, select.POLLIN, time.monotonic() + idle_seconds):
        try:
            request = _read(requests, None)
        except EOFError:
            return
        target, arguments, limit = pickle.loads(request)
        # SIGALRM's default action ends the process even inside C++ code that holds the GIL.
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            module, _, name = target.partition(":")
            function = getattr(importlib.import_module(module), name)
            answer = pickle.dumps((True, function(*arguments)))
        except Exception as error:
            failure = (type(error).__name__, str(error), traceback.format_exc())
            answer = pickle.dumps((False, failure))
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _write(answers, answer, None)


def _command(kind: Kind) -> list[str]:
    package = __name__.split(".", maxsplit=1)[0]
    folders, path = list(sys.modules[package].__path__), [str(path) for path in sys.path]
    boot = (package, folders, path, kind.rooms, kind.memory_bytes, kind.idle_seconds, kind.niceness)
    # -P: the current folder must not shadow the standard library before sys.path is set.
    return [sys.executable, "-P", "-c", _BOOT, json.dumps(boot)]


def _ready(descriptor: int, event: int, deadline: float | None) -> bool:
    """Whether `descriptor` can be read or written (or was closed) before `deadline`."""
    poll = select.poll()  # select() refuses descriptors above 1023, which servers have
    poll.register(descriptor, event)
    left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1e3
    return bool(poll.poll(left))


def _write(descriptor: int, data: bytes, deadline: float | None) -> None:
    """A frame: length, then `data`. TimeoutError after `deadline`."""
    view = memoryview(_HEADER.pack(len(data)) + data)
    while view:
        if not _ready(descriptor, select.POLLOUT, deadline):
            raise TimeoutError
        view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]  # this much never blocks


def _read(descriptor: int, deadline: float | None) -> bytes:
    """The next frame. EOFError at the end of the stream, TimeoutError after `deadline`."""
    (size,) = _HEADER.unpack(_read_exactly(descriptor, _HEADER.size, deadline))
    return _read_exactly(descriptor, size, deadline)


def _read_exactly(descriptor: int, size: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        if not _ready(descriptor, select.POLLIN, deadline):
            raise TimeoutError
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
