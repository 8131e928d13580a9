"""Pairs on the CPU, and what a chain would be on a GPU."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from prism_jax.measure import chains, pairs, timing
from prism_jax.measure.device_time import Sample
from prism_jax.measure.pairs import Pairs, pair


def slow(x: jax.Array) -> list[jax.Array]:
    return [jax.lax.fori_loop(0, 200, lambda _, y: jnp.sin(y @ y), x)]


def fast(x: jax.Array) -> list[jax.Array]:
    return [jnp.sin(x @ x)]


X = jnp.ones((96, 96), jnp.float32) / 96


def test_the_faster_is_found_and_the_reference_compiled_once() -> None:
    traced = 0

    def reference(x: jax.Array) -> list[jax.Array]:
        nonlocal traced
        traced += 1
        return slow(x)

    compared = Pairs(reference, [X], seconds=0.3)
    better = compared.against(fast)
    assert 1.0 < better.low <= better.high
    assert better.candidate_s < better.reference_s
    same = compared.against(slow)
    assert same.low < 1.3
    assert traced == 1
    worse = pair(fast, slow, [X], seconds=0.3)
    assert worse.low < 1.0
    assert worse.candidate_s > worse.reference_s


def test_a_candidate_that_fails_is_an_error() -> None:
    def wrong(x: jax.Array) -> list[jax.Array]:
        raise ValueError("no such kernel")

    with pytest.raises(ValueError, match="no such kernel"):
        pair(fast, wrong, [X])


def test_chains_for_short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: chains of two lengths, which no call shares a computation in."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chains, "_kernel", lambda *_: None)
    monkeypatch.setattr(pairs, "device_time", lambda *_: Sample(10.0, 0.0))
    traced = 0

    def one(x: jax.Array, y: jax.Array) -> list[jax.Array]:
        nonlocal traced
        traced += 1
        return [x + y]

    compared = Pairs(one, [X, X], seconds=0.02)
    found = compared.against(lambda x, y: [x + y + 1])
    compared.against(lambda x, y: [x + y + 2])
    assert compared._chain is not None
    assert (compared._chain.short, compared._chain.long) == pairs.CALLS
    assert len(compared._chain.stacks) == 1
    assert traced == 1  # chains call the jitted function
    assert 0.0 < found.low <= found.high

    monkeypatch.setattr(pairs, "MOST_BYTES", 3 * 3 * X.nbytes)
    compared = Pairs(one, [X, X], seconds=0.02)
    compared.against(lambda x, y: [x + y + 1])
    assert compared._chain is not None
    assert compared._chain.long == 3

    for name, value in (("MOST_BYTES", X.nbytes), ("LONG_SECONDS", 0.0)):
        monkeypatch.setattr(pairs, name, value)
        compared = Pairs(one, [X, X], seconds=0.02)
        assert compared.against(lambda x, y: [x + y + 1]).low > 0.0
        assert compared._chain is None


def test_the_reference_is_compiled_beforehand_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; what it is compiled to is what is timed, and nothing is compiled twice."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chains, "_kernel", lambda *_: None)
    compiled, ran = list[str](), list[str]()

    def heard(event: str, duration_secs: float, **_: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    def one(x: jax.Array) -> list[jax.Array]:
        jax.debug.callback(lambda: ran.append("one"))
        return [x @ x + 3]

    jax.monitoring.register_event_duration_secs_listener(heard)
    compared = Pairs(one, [X], seconds=0.02)
    compared.prepare(pairs.LONG_SECONDS)
    assert (len(compiled) >= 3, ran) == (True, [])
    monkeypatch.setattr(pairs, "device_time", lambda f, args, _: (f(*args), Sample(10.0, 0.0))[1])
    compiled.clear()
    other = jax.jit(lambda x: [x @ x - 5])
    compared.against(other)
    jax.effects_barrier()
    assert len(compiled) == 3  # the candidate, and two chains of it
    assert ran
    again = Pairs(one, [X], seconds=0.02)
    compiled.clear()
    again.prepare(2 * pairs.LONG_SECONDS)
    assert again._chain is None
    assert compiled == []  # `jax.jit` knows the function; `verify` gains by the same


def test_a_reference_that_cannot_be_chained_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The chain's own kernels may fail (here there is no GPU): candidates are still compared."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chains, "_capability", lambda: 90)
    monkeypatch.setattr(pairs, "device_time", lambda *_: Sample(10.0, 0.0))
    compared = Pairs(fast, [X], seconds=0.02)
    assert compared.against(fast).low > 0.0
    assert compared._chain is None


@pytest.mark.parametrize(
    ("chained", "alone", "low"),
    [
        ((1.5, 1.2, 1.8), 1.4, 2.0),
        ((1.01, 0.9, 1.1), 1.0, 2.0),
        ((0.97, 0.9, 1.05), None, 0.97),
        ((0.5, 0.4, 0.6), None, 0.5),
        ((1.5, 1.2, 1.8), 0.9, 0.9),
    ],
)
def test_durations_decide_and_chains_and_single_calls_may_veto(
    monkeypatch: pytest.MonkeyPatch,
    chained: tuple[float, float, float],
    alone: float | None,
    low: float,
) -> None:
    """As on a GPU: the gain is that of kernel durations, unless the chains' median says none, or
    the whole interval of single calls; what the chains refused is not called alone.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chains, "_kernel", lambda *_: None)
    monkeypatch.setattr(chains, "gain", lambda *_, **__: chained)
    times = iter([20.0, 10.0])  # of the reference, then of the candidate
    monkeypatch.setattr(pairs, "device_time", lambda *_: Sample(next(times), 0.0))

    def compared(*_: Any, **__: Any) -> Any:
        assert alone is not None
        return timing.Paired(1e-5, 1e-5, 0.0, 0.0, alone, alone - 0.1, alone, 9)

    monkeypatch.setattr(timing, "compare", compared)
    found = Pairs(fast, [X], seconds=0.02).against(fast)
    assert found.low == pytest.approx(low)
    assert found.candidate_s == pytest.approx(10e-6)


def test_a_slow_chain_vetoes_for_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(chains, "_kernel", lambda *_: None)
    times = iter([20.0, 10.0])
    monkeypatch.setattr(pairs, "device_time", lambda *_: Sample(next(times), 0.0))
    assert Pairs(fast, [X], seconds=0.05).against(slow).low < 1.0


def test_memory_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Device:
        stats: Any = None

        def memory_stats(self) -> Any:
            return self.stats

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert pairs._memory() == pairs.MOST_BYTES
    Device.stats = {"bytes_limit": 1000, "bytes_in_use": 200}
    assert pairs._memory() == 200
