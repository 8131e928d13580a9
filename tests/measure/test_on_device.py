"""The worker's side of measuring: functions of jax play the kernels, the profile is played too."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prism_jax.ir.nodes import Tensor
from prism_jax.launch.value import Launch
from prism_jax.measure import on_device
from prism_jax.measure.inputs import random_values
from prism_jax.measure.sketch import PLACES

X, W = Tensor("x", (3, 100), "bfloat16"), Tensor("w", (100,), "float32")
Y = Tensor("y", (3, 100), "float32")
ROOM = 1 << 24


@dataclasses.dataclass(frozen=True)
class Played:
    """Looks like a `Launch`, runs `body`."""

    body: Callable[..., Sequence[Any]]
    name: str = "kernel"
    operands: tuple[Tensor, ...] = (X, W)
    results: tuple[Tensor, ...] = (Y,)
    partial: tuple[str, ...] = ()

    @property
    def binary(self) -> Any:
        return types.SimpleNamespace(name=self.name)

    def call(self, *, zeroed: bool) -> Callable[..., Sequence[Any]]:
        assert zeroed
        return self.body


def build(launches: Sequence[Played], inputs: tuple[Tensor, ...] = (W, X), room: int = ROOM):
    on_device.build(cast(Sequence[Launch], launches), inputs, room)


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has the profiler see two kernels and a fill of XLA's own; the iterations it was asked for."""
    asked: list[int] = []

    def measure(function: Any, *, aggregate: bool, iterations: int) -> Any:
        assert not aggregate
        asked.append(iterations)

        def run(*args: Any) -> Any:
            rows = [[("fill", 9.0), ("a", 2.0 + n), ("b", 4.0)] for n in range(iterations)]
            return function(*args), rows[0] if iterations == 1 else rows

        return run

    module: Any = types.ModuleType(on_device.PROFILER)
    module.measure = measure
    monkeypatch.setitem(sys.modules, on_device.PROFILER, module)
    return asked


def test_times_and_sketches(profile: list[int]) -> None:
    def double(x: Any, w: Any) -> Sequence[Any]:
        return [x.astype(jnp.float32) * w * 2]

    def triple(w: Any) -> Sequence[Any]:
        return [jnp.broadcast_to(3 * w, (3, 100))]

    build([Played(double, "a"), Played(triple, "b", operands=(W,))])
    first, second = on_device.read()
    assert profile == [on_device.ITERATIONS]
    assert (first.seconds, second.seconds) == pytest.approx((5e-3, 4e-3))
    w, x = random_values([W, X])
    np.testing.assert_allclose(first.sketch[0], np.ravel(2 * w * x.astype(np.float32)), rtol=1e-6)
    np.testing.assert_allclose(second.sketch[0], np.tile(3 * w, 3), rtol=1e-6)


def test_large_narrow_and_partial_results() -> None:
    wide = Tensor("wide", (2000, 1000), "float32")
    few, part = Tensor("few", (20, 1000), "bfloat16"), Tensor("part", (7,), "int32")

    def body() -> Sequence[Any]:
        values = jnp.arange(2_000_000.0).reshape(2000, 1000)
        return values, values[:20].astype(jnp.bfloat16), jnp.arange(7)

    launch = Played(body, operands=(), results=(wide, few, part), partial=("part",))
    large, narrow, cut = on_device._sketch(cast(Launch, launch), [jnp.asarray(o) for o in body()])
    assert large.shape == narrow.shape == (PLACES,)
    assert len(np.unique(large)) > 0.9 * PLACES
    assert narrow.dtype == np.float32
    assert cut.size == 0


def test_iterations_fit_the_room(profile: list[int]) -> None:
    def same(x: Any, w: Any) -> Sequence[Any]:
        return [x + w]

    both = [Played(same, "a"), Played(same, "b")]
    build(both, room=2 * 2 * 1200 + 5)
    on_device.read()
    build(both, room=2 * 5 * 1200)
    on_device.read()
    assert profile == [1, 4]


def test_a_profile_of_other_kernels_is_an_error(profile: list[int]) -> None:
    build([Played(lambda x, w: [x + w], "b"), Played(lambda x, w: [x * w], "a")])
    with pytest.raises(RuntimeError, match=r"\['b', 'a'\] shows \['fill', 'a', 'b'\]"):
        on_device.read()
    assert profile


def test_an_error_says_whether_the_process_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(x: Any, w: Any) -> Sequence[Any]:
        def raises(x: Any) -> Any:
            raise ValueError("bad kernel")

        return [jax.pure_callback(raises, jax.ShapeDtypeStruct((3, 100), jnp.float32), x)]

    build([Played(fails)])
    with pytest.raises(Exception, match="bad kernel") as caught:
        on_device.probe()
    assert not isinstance(caught.value, on_device.ContextLostError)

    def dead() -> None:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(on_device, "_alive", dead)
    with pytest.raises(on_device.ContextLostError, match="bad kernel"):
        on_device.probe()


def test_nothing_runs_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "_batch", None)
    with pytest.raises(RuntimeError, match="nothing was built"):
        on_device.probe()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    """The inputs that are kept: none at first."""
    kept: dict[Any, Any] = {}
    monkeypatch.setattr(on_device, "_kept", kept)
    return kept


def test_inputs_are_kept_for_other_batches(kept: dict[Any, Any]) -> None:
    def named(name: str, like: Tensor) -> Tensor:
        return Tensor(name, like.shape, like.dtype)

    x, w = on_device._read((X, W))
    assert [one.device.shape for one in (x, w)] == [(3, 100), (100,)]
    again, other, more = on_device._read((named("v", W), named("y", X), named("z", X)))
    assert (again, other) == (w, x)
    assert more.host.tobytes() != x.host.tobytes()  # two tensors of one shape are not the same
    assert len(kept) == 3


def test_inputs_that_are_not_read_take_a_share_of_the_memory(
    kept: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "_limit", int(1000 / on_device.KEPT_SHARE))
    tensors = [Tensor("t", (n,), "float32") for n in (100, 110, 120)]
    for tensor in tensors:
        on_device._read((tensor,))
    assert [kind[0] for kind in kept] == [(100,), (110,), (120,)]  # 840 bytes beside the last
    on_device._read((W,))
    assert [kind[0] for kind in kept] == [(110,), (120,), (100,)]  # W is of the first one's kind
    on_device._read((X,))
    assert [kind[0] for kind in kept] == [(120,), (100,), (3, 100)]


@pytest.mark.parametrize("compared", [1 << 20, 16])
def test_changed_inputs_are_noticed(
    kept: dict[Any, Any], monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    monkeypatch.setattr(on_device, "COMPARED_BYTES", compared)
    finish = on_device._finish

    def writing(batch: Any) -> Any:
        outputs = finish(batch)
        (x,) = (one for one in batch.inputs if one.device.shape == X.shape)
        x.device = x.device.at[2, 99].set(7)  # as a write past the end would
        return outputs

    with monkeypatch.context() as patch:
        patch.setattr(on_device, "_finish", writing)
        build([Played(lambda x, w: [x + w])])
        with pytest.raises(on_device.OverwrittenError):
            on_device.probe()
    assert not kept
    build([Played(lambda x, w: [x + w])])
    on_device.probe()


def test_no_kernel_answers_for_what_an_earlier_batch_wrote(kept: dict[Any, Any]) -> None:
    build([Played(lambda x, w: [x + w])])
    on_device.probe()
    for one in kept.values():
        one.device = one.device * 0  # while it was profiled, say
    build([Played(lambda x, w: [x + w])])
    on_device.probe()
    assert all(one.host.tobytes() == np.asarray(one.device).tobytes() for one in kept.values())


def test_memory_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "")
    monkeypatch.setattr(on_device, "_device_memory", lambda: (4 << 30, 80 << 30))
    monkeypatch.setattr(on_device, "_limit", None)
    with pytest.raises(RuntimeError, match="jax runs on cpu"):
        on_device.start(None)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert on_device.start(None) == (1 << 30) * 2 // 3
    fraction = float(on_device.os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"])
    assert fraction == pytest.approx(1.25 / 80, rel=1e-3)
    assert on_device.start(5) == (1 << 30) * 2 // 3  # a process has one limit


def test_inputs_hold_no_zeros_and_no_repeated_rows() -> None:
    floats, ints, flags, narrow = random_values(
        [
            Tensor("x", (2048, 1024), "float32"),
            Tensor("i", (999,), "int32"),
            Tensor("b", (999,), "bool"),
            Tensor("n", (64,), "float8_e4m3fn"),
        ]
    )
    assert np.count_nonzero(floats) > 0.999 * floats.size
    assert len({row.tobytes() for row in floats}) == len(floats)
    assert {*ints.tolist()} == {0, 1}
    assert flags.dtype == np.bool_
    assert str(narrow.dtype) == "float8_e4m3fn"
    assert random_values([Tensor("s", (), "float16")])[0].shape == ()
