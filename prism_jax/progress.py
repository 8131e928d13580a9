"""One live line about long work: on a terminal, in a notebook, and nowhere else.

In: what the stages say while they run (`note`). Out: on a terminal a line that is written over
itself and erased at the end, in a notebook a display that is updated; in every case one line in the
log (`prism_jax`, INFO) when the work is over. Invariants: work shorter than `PATIENCE_SECONDS`
shows nothing; whatever happens to the place where the line is shown, nothing is raised; nothing is
imported for it.

>>> state = State("attention", "measure", done=3, total=8, best="2.1x faster", left=12.4)
>>> print(line(state, seconds=7.6, width=80))
prism_jax attention: measure 3/8, best 2.1x faster, 8 s, at most 12 s left
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

PATIENCE_SECONDS = 0.7
REDRAW_SECONDS = 0.25

_log = logging.getLogger("prism_jax")


@dataclass(frozen=True)
class State:
    """What is being done: for which function, which stage, how many of how many candidates, the
    best so far, and the seconds that the stage may still take.
    """

    name: str
    stage: str
    done: int = 0
    total: int = 0
    best: str = ""
    left: float | None = None


def line(state: State, seconds: float, width: int) -> str:
    """The state as one line of at most `width` columns."""
    parts = [f"{state.stage} {state.done}/{state.total}" if state.total else state.stage]
    parts += [f"best {state.best}"] if state.best else []
    parts.append(f"{seconds:.0f} s")
    parts += [f"at most {max(0.0, state.left):.0f} s left"] if state.left is not None else []
    text = f"prism_jax {state.name}: {', '.join(parts)}"
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


class Show:
    """The live line of one piece of work. `put` draws a text, `end` removes it."""

    def put(self, text: str) -> None:
        """Shows a text in the line's place."""

    def end(self) -> None:
        """Leaves no line behind."""


class Terminal(Show):
    """A line on standard error that is written over itself."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._shown = stream, 0

    def put(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._shown))
        self._stream.flush()
        self._shown = len(text)

    def end(self) -> None:
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()


class Notebook(Show):
    """A display of its own below the cell."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display, self._handle = display, None

    def put(self, text: str) -> None:
        shown = {"text/plain": text}
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def end(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)


def place() -> Show | None:
    """Where a line can be seen: a notebook, a terminal, or nowhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        return Notebook(sys.modules["IPython"].display.display)
    stream = sys.stderr
    with contextlib.suppress(Exception):
        if stream is not None and stream.isatty():
            return Terminal(stream)
    return None


class _Work:
    """One piece of work: its state, and the thread that draws it when it takes long."""

    def __init__(self, state: State, show: Show | None) -> None:
        self.state, self._show, self._start = state, show, time.monotonic()
        self._noted = self._start
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if show is not None:
            self._thread = threading.Thread(target=self._draw, name="prism_jax_line", daemon=True)
            self._thread.start()

    def note(self, **changes: Any) -> None:
        self._noted = time.monotonic()
        self.state = replace(self.state, **changes)

    def _draw(self) -> None:
        assert self._show is not None
        pause = PATIENCE_SECONDS
        # The terminal may be gone, the notebook closed: then there is no line.
        with contextlib.suppress(Exception):
            while not self._over.wait(pause):
                pause, now, state = REDRAW_SECONDS, time.monotonic(), self.state
                if state.left is not None:
                    state = replace(state, left=state.left - (now - self._noted))
                width = shutil.get_terminal_size().columns - 1
                self._show.put(line(state, now - self._start, width))
            self._show.end()

    def end(self) -> float:
        """Removes the line; the seconds that the work took."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(1.0)
        return time.monotonic() - self._start


_work: ContextVar[_Work | None] = ContextVar("prism_jax_work", default=None)


@contextlib.contextmanager
def showing(name: str, visible: bool) -> Generator[None]:
    """Everything inside is work for `name`: one line while it lasts, one in the log at its end.

    Args:
      name: the function or region that is worked for.
      visible: whether a line may be shown at all.
    """
    if _work.get() is not None:  # part of greater work, which has a line already
        yield
        return
    work = _Work(State(name, "search"), place() if visible else None)
    token = _work.set(work)
    try:
        yield
    finally:
        _work.reset(token)
        seconds, state = work.end(), work.state
        tried = f"{state.done} of {state.total} candidates, " if state.total else ""
        found = state.best or "nothing faster than XLA's version"
        _log.info("%s: %s%s, %.1f s", name, tried, found, seconds)


def note(**changes: Any) -> None:
    """What changed: fields of `State`. Does nothing where nothing is being shown."""
    work = _work.get()
    if work is not None:
        work.note(**changes)


def advance() -> None:
    """One more candidate is done."""
    work = _work.get()
    if work is not None:
        work.note(done=work.state.done + 1)
