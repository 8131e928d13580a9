"""The host's clock: order, failures, and a deadline."""

from __future__ import annotations

import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from prism_jax.ir.nodes import Axis, Load, Store, Tensor, at
from prism_jax.ir.sgraph import LibraryCall, SGraph
from prism_jax.measure.host import HOPELESS, host_clock

I = Axis("i", 256)  # noqa: E741
X, Y = Tensor("x", (256, 256), "float32"), Tensor("y", (256, 256), "float32")
J = Axis("j", 256)
COPY = LibraryCall("copy", "xla", (Store(Y, (at(I), at(J)), Load(X, (at(I), at(J)))),))
GRAPH = SGraph("copy", (X,), (COPY,), (Y,))


def slow(x: Any) -> tuple[Any]:
    return (jax.lax.fori_loop(0, 60, lambda _, a: jnp.tanh(a @ x), x),)


def fast(x: Any) -> tuple[Any]:
    return (x + 1,)


def wrong(x: Any) -> tuple[Any]:
    raise ValueError("no such tile")


def test_what_competes_is_ordered_and_failures_have_sentences() -> None:
    far = time.monotonic() + 600
    first, failed, second = host_clock([slow, wrong, fast], GRAPH, far)
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert first > HOPELESS * second
    assert failed == "does not run: ValueError: no such tile"


def test_nothing_starts_after_the_deadline() -> None:
    def never(x: Any) -> Any:
        raise AssertionError("traced")

    assert host_clock([never], GRAPH, time.monotonic() - 1) == ["not measured: no time left"]


@pytest.mark.parametrize("where", ["tracing", "running"])
def test_one_that_hangs_costs_only_itself(where: str) -> None:
    release = threading.Event()

    def waits(x: Any) -> Any:
        release.wait(30.0)
        return x

    def hangs(x: Any) -> tuple[Any]:
        if where == "tracing":
            return (waits(x),)
        return (jax.pure_callback(waits, jax.ShapeDtypeStruct(x.shape, x.dtype), x),)

    start = time.monotonic()
    try:
        first, hung, last = host_clock([slow, hangs, fast], GRAPH, start + 4.0)
        seconds = time.monotonic() - start
    finally:
        release.set()
    assert isinstance(first, float)
    assert isinstance(last, float)
    assert "did not end in" in str(hung)
    assert seconds < 4.4


def test_what_is_hopeless_is_sampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from prism_jax.measure import host

    seconds = {"a": 1.0, "b": 3.0, "c": 1.2}
    sampled: list[str] = []

    def once(call: Any, arguments: Any) -> float:
        name = str(call(*arguments)[1])
        sampled.append(name)
        return seconds[name]

    monkeypatch.setattr(host, "_once", once)
    monkeypatch.setattr(jax, "jit", lambda f: f)
    monkeypatch.setattr(jax, "block_until_ready", lambda x: x)
    functions = [lambda x, n=name: (x, n) for name in seconds]
    found = host_clock(functions, GRAPH, time.monotonic() + 600)
    assert found == [1.0, 3.0, 1.2]
    assert sampled.count("b") == 1
    assert sampled.count("a") == sampled.count("c") >= host.ROUNDS[0]
