"""Kernels that crash, hang or write nonsense cost themselves alone; a fake device plays them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from prism_jax.emit.binary import Binary
from prism_jax.ir.nodes import Tensor
from prism_jax.launch.value import Launch
from prism_jax.measure import worker
from prism_jax.measure.sift import FailureError, HopelessError, Sieve
from prism_jax.measure.sketch import Reading, equal, minority
from prism_jax.measure.worker import DeviceWorker

X, Y = Tensor("x", (64,), "float32"), Tensor("y", (64,), "float32")


def launch(name: str, microseconds: int = 1, result: Tensor = Y) -> Launch:
    binary = Binary(
        name=name,
        compute_capability=90,
        parameters=("*fp32", "*fp32"),
        pointer_divisibility=(16, 16),
        ptx="",
        cubin=b"",
        shared=microseconds,
        num_warps=4,
        num_ctas=1,
        registers=32,
        stack=0,
    )
    return Launch(binary, (1,), (X,), (result,))


Measure = Callable[..., list[float | str]]


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many workers were started."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("FAKE_DEVICE_LOG", str(log))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return lambda: len(log.read_text().splitlines())


@pytest.fixture
def device(starts: Callable[[], int]) -> Iterator[DeviceWorker]:
    del starts
    device = DeviceWorker("fake_device", run_seconds=2.0)
    yield device
    device.close()


def measure(device: DeviceWorker, names: Sequence[str], seconds: float = 60.0) -> list[float | str]:
    launches = [launch(name, number + 1) for number, name in enumerate(names)]
    return device.kernel_seconds(launches, [X], time.monotonic() + seconds)


def test_good_kernels_are_timed_in_order(device: DeviceWorker, starts: Callable[[], int]) -> None:
    assert measure(device, ["good"] * 40) == pytest.approx([1e-6 * (n + 1) for n in range(40)])
    assert measure(device, ["good"]) == pytest.approx([1e-6])
    assert device.kernel_seconds([], [X], time.monotonic() + 1.0) == []
    assert starts() == 1


@pytest.mark.parametrize(
    ("name", "sentence", "workers"),
    [
        ("illegal", "illegal memory access", 3),
        ("crash", "the worker process ended with signal SIGABRT", 3),
        ("hang", "did not return in 1 s", 3),
        ("large", "needs more memory than measuring may use", 1),
        ("stray", "illegal write: its inputs have changed", 1),
        ("unfit", "ValueError: kernel unfit takes 2 arrays, not 1", 1),
        ("wrong", "wrong result: most kernels beside it agree on another", 1),
    ],
)
def test_one_bad_kernel_is_refused_alone(
    device: DeviceWorker, starts: Callable[[], int], name: str, sentence: str, workers: int
) -> None:
    names = ["good"] * 20
    names[5] = name
    found = measure(device, names)
    assert str(found[5]).startswith(sentence)
    good = [n for n in range(20) if n != 5]
    assert [found[n] for n in good] == pytest.approx([1e-6 * (n + 1) for n in good])
    assert starts() == workers  # the first, one after the batch, one after the culprit


def test_kernels_that_fail_only_together_are_parted(
    device: DeviceWorker, starts: Callable[[], int]
) -> None:
    found = measure(device, ["gas", "good", "spark", "good"])
    assert found == pytest.approx([1e-6, 2e-6, 3e-6, 4e-6])
    assert starts() == 2


def test_lost_workers_are_limited(device: DeviceWorker, starts: Callable[[], int]) -> None:
    found = measure(device, ["good"] * 16 + ["crash"] * 10 + ["good"] * 6)
    assert found[:16] == pytest.approx([1e-6 * (n + 1) for n in range(16)])
    crashed = [n for n, f in enumerate(found) if "SIGABRT" in str(f)]
    assert crashed == list(range(16, 16 + worker.MOST_LOSSES - 1))
    assert all("too many kernels" in str(f) for f in found[max(crashed) + 1 :])
    assert starts() <= worker.MOST_LOSSES + 1


@pytest.fixture(autouse=True)
def _as_with_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LOAD_SECONDS", 0.0)


def test_a_spare_is_made_ready_after_a_loss(
    device: DeviceWorker, starts: Callable[[], int], tmp_path: Path
) -> None:
    measure(device, ["crash"])
    assert device._warming is not None
    device._warming.join(20.0)
    warmed = int((tmp_path / "log.warm").read_text().split()[1])
    measure(device, ["crash"])
    measure(device, ["good"])
    started = [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()]
    assert starts() == 3
    assert started[2] == warmed


def test_the_deadline_is_kept(device: DeviceWorker) -> None:
    measure(device, ["good"])
    begin = time.monotonic()
    found = measure(device, ["good", "hang", "good"], seconds=0.5)
    assert time.monotonic() - begin < 3.0
    assert found == ["not measured: no time left"] * 3
    assert measure(device, ["good"], seconds=-1.0) == ["not measured: no time left"]
    assert measure(device, ["good"]) == pytest.approx([1e-6])


def test_what_no_kernel_can_help_is_said_once(
    device: DeviceWorker, starts: Callable[[], int]
) -> None:
    found = measure(device, ["blind"] * 20)
    assert found == ["not measured: ProfileError: no permission to profile"] * 20
    assert starts() == 1


def test_memory_is_bounded(starts: Callable[[], int]) -> None:
    del starts
    device = DeviceWorker("fake_device", memory_bytes=4096)
    try:
        deadline = time.monotonic() + 60.0
        wide = Tensor("y", (512,), "float32")
        small, large = launch("good"), launch("good", result=wide)
        assert device.kernel_seconds([small] * 20, [X], deadline) == pytest.approx([1e-6] * 20)
        (sentence,) = device.kernel_seconds([large], [X], deadline)
        assert sentence == "not measured: needs 4352 bytes of the GPU, measuring may use 4096"
    finally:
        device.close()


def test_without_a_gpu_the_reason_is_given() -> None:
    device = DeviceWorker()
    try:
        (sentence,) = device.kernel_seconds([launch("any")], [X], time.monotonic() + 60.0)
    finally:
        device.close()
    assert str(sentence).startswith("not measured: no worker process: RuntimeError: ")


def test_prepare_starts_the_worker_that_is_used(
    device: DeviceWorker, starts: Callable[[], int]
) -> None:
    device.prepare()
    end = time.monotonic() + 20.0
    while not starts():
        assert time.monotonic() < end
        time.sleep(0.01)
    measure(device, ["good"])
    assert starts() == 1


def test_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_DEBUG_NANS", "1")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", ".9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    found = worker._environment()
    assert found["CUDA_VISIBLE_DEVICES"] == "3"
    assert found["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert not {"JAX_DEBUG_NANS", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"} & {
        *found
    }
    assert found["PATH"] == os.environ["PATH"]


def test_sketches_are_equal_up_to_rounding() -> None:
    one, other = (np.ones(9),), (np.full(9, 1.01),)
    assert equal(one, other)
    assert not equal(one, (np.full(9, 1.2),))
    assert not equal(one, (np.where(np.arange(9) == 4, np.nan, 1.0),))
    assert equal((np.array([np.nan, 1.0]),), (np.array([np.nan, 1.0]),))
    assert equal((np.zeros(0),), (np.zeros(0),))
    assert not equal((np.array([1, 2]),), (np.array([1, 3]),))
    assert equal((np.zeros(3),), (np.zeros(3),))
    assert not equal((np.zeros(9),), one)
    quotients = np.append(np.ones(999), 1e6)  # one divisor was nearly nothing
    assert equal((quotients,), (np.append(np.ones(999), 2e6),))
    assert not equal((quotients,), (np.append(np.ones(990), np.full(10, 1e6)),))


def test_minority_needs_a_majority() -> None:
    a, b, c = (np.ones(4),), (np.zeros(4),), (np.full(4, 3.0),)
    assert minority([]) == frozenset()
    assert minority([a]) == frozenset()
    assert minority([a, b, c]) == frozenset()
    assert minority([a, b, a, b]) == frozenset()
    assert minority([b, a, a, c]) == {0, 3}


def test_readings_are_compared_with_their_like_only() -> None:
    wide = Tensor("y", (128,), "float32")
    launches = [launch("k"), launch("k"), launch("k", result=wide)]
    readings = [Reading(1.0, (np.ones(4),)), Reading(2.0, (np.ones(4),))]
    found = worker.judged(launches, [*readings, Reading(3.0, (np.zeros(4),))])
    assert found == [1.0, 2.0, 3.0]


def test_a_sieve_asks_as_little_as_it_can() -> None:
    asked: list[str] = []

    def read(items: Sequence[str]) -> list[str]:
        asked.append("".join(items))
        if "x" in items:
            raise FailureError("bad", lost=True)
        if "!" in items:
            raise HopelessError("none of them")
        return [item.upper() for item in items]

    def probe(item: str) -> None:
        read([item])

    def sift(items: str, losses: int) -> list[str]:
        asked.clear()
        sieve = Sieve(read, probe, deadline=time.monotonic() + 60.0, most_losses=losses)
        return sieve.run(items, 4)

    assert sift("abcdef", 9) == ["A", "B", "C", "D", "E", "F"]
    assert asked == ["abcd", "ef"]
    assert sift("abxdef", 9) == ["A", "B", "bad", "D", "E", "F"]
    assert asked == ["abxd", "a", "b", "x", "d", "abd", "ef"]
    assert sift("xxabef", 2)[0] == "bad"
    assert all("too many" in text for text in sift("xxabef", 2)[1:])
    assert sift("abcd!f", 9) == ["A", "B", "C", "D", "none of them", "none of them"]
