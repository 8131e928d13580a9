"""The host's clock: order, failures, and a deadline."""

from __future__ import annotations

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
