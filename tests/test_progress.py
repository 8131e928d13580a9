"""The live line: where it is shown, what it says, that it goes away, that nothing depends on it."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism_jax import progress
from prism_jax.progress import State, line, note, place, showing


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def visible(self) -> str:
        """What stands on the line in the end."""
        shown = ""
        for part in self.getvalue().split("\r"):
            shown = part + shown[len(part) :]
        return shown.rstrip()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.01)


def work(seconds: float = 0.15) -> None:
    note(stage="explore")
    note(stage="tune", done=1, total=7, best="2.0x faster than XLA", left=9.0)
    time.sleep(seconds)


def test_a_terminal_shows_one_line_and_keeps_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with caplog.at_level(logging.INFO, "prism_jax"), showing("f_0", visible=True):
        work()
    text = screen.getvalue()
    assert "prism_jax f_0: tune 1/7, best 2.0x faster than XLA" in text
    assert re.search(r"at most \d s left", text)
    assert "\n" not in text
    assert screen.visible() == ""
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert re.fullmatch(r"f_0: 1 of 7 candidates, 2\.0x faster than XLA, 0\.\d s", said[0])


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 5.0)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with showing("f", visible=True):
        work(0.01)
    assert screen.getvalue() == ""


@pytest.mark.parametrize("reason", ["no terminal", "switched off", "no stream"])
def test_elsewhere_there_is_only_the_log(
    reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    streams = {"no terminal": io.StringIO(), "switched off": Screen(), "no stream": None}
    stream: Any = streams[reason]
    monkeypatch.setattr(sys, "stderr", stream)
    with caplog.at_level(logging.INFO, "prism_jax"), showing("f", reason != "switched off"):
        work(0.05)
    assert stream is None or stream.getvalue() == ""
    assert len(caplog.records) == 1


def test_a_notebook_updates_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    class Handle:
        def update(self, shown: Any, raw: bool) -> None:
            assert raw
            texts.append(shown["text/plain"])

    def display(shown: Any, raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        texts.append(shown["text/plain"])
        return Handle()

    shell = SimpleNamespace(kernel=object())
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    with showing("f", visible=True):
        work()
    assert "tune 1/7" in texts[0]
    assert texts[-1] == ""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not isinstance(place(), progress.Notebook)


def test_a_terminal_that_is_gone_is_nobodys_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with showing("f", visible=True):
        screen.close()
        work(0.05)


def test_inner_work_shares_the_line(caplog: pytest.LogCaptureFixture) -> None:
    seen = caplog.at_level(logging.INFO, "prism_jax")
    with seen, showing("outer", visible=False), showing("inner", visible=False):
        note(done=2, total=3)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["outer"]
    assert "2 of 3" in caplog.records[0].getMessage()
    note(done=1)  # outside of all work: nobody listens


@given(st.text(max_size=30), st.integers(0, 200), st.floats(0, 1e6), st.integers(0, 300))
def test_a_line_fits(name: str, done: int, seconds: float, width: int) -> None:
    text = line(State(name, "tune", done, 200, "1.5x", -3.0), seconds, width)
    assert len(text) <= max(width, 3)
    assert "-" not in line(State("f", "tune", left=-3.0), 0.0, 200)


def test_a_search_reports_its_stages(caplog: pytest.LogCaptureFixture) -> None:
    """The real stages, on a small program: candidates are counted, the log has one line."""
    import jax.numpy as jnp

    import prism_jax as prism

    ours = prism.jit(
        lambda x, y: jnp.tanh(x @ y) @ y.T, options=prism.Options(tune_seconds=1.0, cache="off")
    )
    with caplog.at_level(logging.INFO, "prism_jax"):
        ours(jnp.ones((16, 24)), jnp.ones((24, 16)))
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert re.search(r"\d of \d candidates, (nothing faster|.*x faster).* s$", said)
