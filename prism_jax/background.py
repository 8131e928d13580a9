"""Work beside the user's calls: one thread, one job after the other, each wanted thing once.

In: a key and a function. Out: a `Job`, which ends with the function's result or its exception.
Invariants: jobs run in the order in which they were asked for, never two at once (they measure);
nobody waits for one unless he asks to; when the process ends, the job at hand is asked to stop and
the others are not begun.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from contextvars import ContextVar
from typing import Any

#: Seconds that the end of the process waits for the job at hand, once it was asked to stop: XLA
#: may be compiling for it, which cannot be interrupted, and coming back to an interpreter that is
#: gone would abort the process.
LAST_SECONDS = 30.0


class Job:
    """One piece of work. `result` and `error` are set when `done` is."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._context = contextvars.copy_context()
        self._done = threading.Event()
        self._then: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for its end; whether it has ended."""
        return self._done.wait(seconds)

    def then(self, call: Callable[[], None]) -> None:
        """Has `call` run, in a thread of its own, when this has ended."""
        with self._lock:
            if not self.done:
                self._then.append(call)
                return
        queue.follow(call)

    def run(self) -> None:
        """Does the work; for the thread."""
        try:
            self.result = self._context.run(self._run)
        except BaseException as error:
            self.error = error
        with self._lock:
            self._done.set()
        for call in self._then:
            queue.follow(call)


class Queue:
    """The jobs of a process, and the thread that does them, which ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Hashable, Job] = {}
        self._waiting: collections.deque[Job] = collections.deque()
        self._thread: threading.Thread | None = None
        self._followers: list[threading.Thread] = []
        self._closed = False
        self.at_close: list[Callable[[], Sequence[threading.Thread] | None]] = []

    def job(self, key: Hashable, run: Callable[[], Any]) -> Job:
        """The job of this key, begun some time soon unless it is known already."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = Job(run)
                if not self._closed:
                    self._waiting.append(found)
                    self._start()
            return found

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: the end of the process waits for it only so long (`close`).
            self._thread = threading.Thread(target=self._work, name="prism_jax_tune", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._closed:
                    self._thread = None
                    return
                job = self._waiting.popleft()
            job.run()

    def follow(self, call: Callable[[], None]) -> None:
        """Runs `call` in a thread of its own, unless the process is ending."""
        with self._lock:
            if self._closed:
                return
            thread = threading.Thread(target=call, name="prism_jax_swap", daemon=True)
            self._followers = [t for t in self._followers if t.is_alive()] + [thread]
        thread.start()

    def forget(self) -> None:
        """Forgets every job that has ended (for tests), and what waits."""
        with self._lock:
            self._waiting.clear()
            self._known = {key: job for key, job in self._known.items() if not job.done}

    def close(self) -> None:
        """Begins nothing more and waits a little for the job at hand, and for the threads that the
        functions of `at_close` return: the process ends.
        """
        with self._lock:
            self._closed = True
            threads = [*self._followers, *([self._thread] if self._thread else [])]
            self._waiting.clear()
        for call in tuple(self.at_close):
            threads += call() or ()
        end = time.monotonic() + LAST_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    @property
    def closed(self) -> bool:
        """Whether the process is ending."""
        return self._closed


queue = Queue()
atexit.register(queue.close)

_heard: ContextVar[list[Job] | None] = ContextVar("prism_jax_jobs", default=None)


@contextlib.contextmanager
def listening() -> Generator[list[Job]]:
    """The jobs whose results are wanted inside the block and not there yet."""
    heard: list[Job] = []
    token = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(token)


def awaited(job: Job) -> None:
    """Tells whoever listens that a job's result would have been used."""
    heard = _heard.get()
    if heard is not None:
        heard.append(job)
