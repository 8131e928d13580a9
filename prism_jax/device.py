"""Device models: one row of numbers per device, from which every closed form and bound is computed.

In: a row's name, or nothing (then what jax would run on). Out: a frozen `Device`. Nothing here runs
on an accelerator: the GPU rows are constants (rates that were reached, not data-sheet peaks, so a
bound made of them can be met), and the CPU's row is calibrated once with numpy alone and kept.

Invariant: a row is a value. Two processes that see the same row rank the same plans in the same
order, which is why the calibrated CPU row is rounded to coarse steps and can be kept in a file.

>>> row("H100").sm_count
132
>>> row("H100").rate("f16") / row("H100").dram_bytes_per_s > 250  # FLOPs per byte
True
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

#: What a rate counts: multiply-adds as two FLOPs in matrix units (`f16`, `tf32`; on a CPU the
#: matrix library), instructions elsewhere (`f32`: add, multiply, multiply-add, compare, select;
#: `special`: exponential, logarithm, ...).
Unit = Literal["f16", "tf32", "f32", "special"]
UNITS: tuple[Unit, ...] = ("f16", "tf32", "f32", "special")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """One device as the cost model sees it. Rates are per second and were measured or are
    reachable.

    Attributes:
      name: row name, part of every plan made for it.
      kind: `gpu` (kernels are Triton) or `cpu` (kernels are blocked lax).
      sm_count: blocks that run at once at full rate: multiprocessors, or cores.
      clock: hertz.
      dram_bytes_per_s: copy bandwidth, bytes read plus bytes written.
      l2_bytes: size of the cache that all blocks share.
      l2_bytes_per_s: bandwidth of that cache.
      smem_per_block: bytes that one block can keep to itself (shared memory, or a core's own
        cache).
      regs_per_sm: 32-bit registers of one multiprocessor.
      rates: what `UNITS` says, per second, whole device.
      launch_s: seconds that one more kernel costs in a captured chain.
      compute_capability: 10 * major + minor for NVIDIA, 0 otherwise.
    """

    name: str
    kind: Literal["gpu", "cpu"]
    sm_count: int
    clock: float
    dram_bytes_per_s: float
    l2_bytes: int
    l2_bytes_per_s: float
    smem_per_block: int
    regs_per_sm: int
    rates: Mapping[Unit, float] = dataclasses.field(hash=False)
    launch_s: float
    compute_capability: int = 0

    def __post_init__(self) -> None:
        missing = [unit for unit in UNITS if not self.rates.get(unit, 0.0) > 0.0]
        if missing:
            raise ValueError(f"device row {self.name!r} has no positive rate for {missing}")

    def rate(self, unit: Unit) -> float:
        """Operations per second of `unit` with every block busy."""
        return self.rates[unit]

    def to_json(self) -> dict[str, object]:
        """The row as plain values; `from_json` reads it back to an equal row."""
        return {**dataclasses.asdict(self), "rates": dict(self.rates)}

    @staticmethod
    def from_json(values: Mapping[str, object]) -> Device:
        """The row that `to_json` wrote. Raises TypeError or ValueError for anything else."""
        return Device(**dict(values))  # pyright: ignore[reportArgumentType]


_HOPPER = Device(
    name="H100",
    kind="gpu",
    sm_count=132,
    clock=1.755e9,
    dram_bytes_per_s=3.0e12,
    l2_bytes=50 * 2**20,
    l2_bytes_per_s=6.0e12,
    smem_per_block=227 * 2**10,
    regs_per_sm=65536,
    rates={"f16": 800e12, "tf32": 400e12, "f32": 30e12, "special": 3.7e12},
    # An empty kernel's own duration. XLA's captured calls cost 1.8 to 2.7 us; the bound wants the
    # smallest.
    launch_s=1.2e-6,
    compute_capability=90,
)

#: GPU rows by name. H100 (80GB HBM3, SXM) and H200's bandwidth were measured; A100's (80GB, SXM)
#: rates are 87 % of its data sheet for products and copies, which is the share that the H100
#: reaches of its own.
ROWS: Mapping[str, Device] = {
    "A100": dataclasses.replace(
        _HOPPER,
        name="A100",
        sm_count=108,
        clock=1.41e9,
        dram_bytes_per_s=1.75e12,
        l2_bytes=40 * 2**20,
        l2_bytes_per_s=4.5e12,
        smem_per_block=163 * 2**10,
        rates={"f16": 270e12, "tf32": 135e12, "f32": 9.7e12, "special": 2.4e12},
        compute_capability=80,
    ),
    "H100": _HOPPER,
    "H200": dataclasses.replace(_HOPPER, name="H200", dram_bytes_per_s=4.3e12, l2_bytes=60 * 2**20),
}

_calibrated: dict[str, Device] = {}


def row(name: str, store: Path | None = None) -> Device:
    """The row called `name`: one of `ROWS`, or "CPU" (calibrated on first use; see `cpu`).

    Raises:
      KeyError: there is no such row; the message lists those there are.
    """
    if name.upper() == "CPU":
        return cpu(store)
    if name.upper() not in ROWS:
        raise KeyError(f"no device row {name!r}; there are {', '.join(sorted(ROWS))} and CPU")
    return ROWS[name.upper()]


def current(backend: str | None = None, store: Path | None = None) -> Device:
    """The row for jax's default backend, or for `backend` ("cpu", "gpu", "cuda", "rocm", "tpu").

    Asking for "cpu" does not initialise jax. A GPU that has no row of its own gets the A100's rates
    scaled by its number of multiprocessors; platforms that run no kernels of ours get the CPU's
    row, which only ranks.
    """
    if backend == "cpu":
        return cpu(store)
    import jax  # a caller that names the CPU must not pay for, or initialise, jax

    platform = backend if backend is not None else jax.default_backend()
    if platform not in ("gpu", "cuda", "rocm"):
        return cpu(store)
    device = jax.devices(platform)[0]
    return for_gpu(device.device_kind, getattr(device, "core_count", None))


def for_gpu(device_kind: str, core_count: int | None = None) -> Device:
    """The row of a GPU by the name its driver gives.

    >>> for_gpu("NVIDIA H100 80GB HBM3").name
    'H100'
    >>> for_gpu("NVIDIA L4", 58).sm_count
    58
    """
    for name in sorted(ROWS):
        if name in device_kind.upper():
            return ROWS[name]
    base = ROWS["A100"]
    count = core_count or base.sm_count
    share = count / base.sm_count
    return dataclasses.replace(
        base,
        name=device_kind,
        sm_count=count,
        dram_bytes_per_s=base.dram_bytes_per_s * share,
        l2_bytes_per_s=base.l2_bytes_per_s * share,
        rates={unit: rate * share for unit, rate in base.rates.items()},
    )


# --- the CPU's row --------------------------------------------------------------------------------

_FILE = "cpu-row-v2.json"
LEAST_PRODUCT_RATE = 20e9
"""FLOP/s that one core's vector units reach at the least."""


def cpu(store: Path | None = None) -> Device:
    """This machine's CPU row: from this process, else from the folder `store`, else measured (about
    0.1 s) and kept.

    An unreadable or unwritable store costs a measurement, never an error.
    """
    if "CPU" not in _calibrated:
        found = _load(store / _FILE) if store else None
        if found is None:
            found = calibrate_cpu()
            if store:
                _save(store / _FILE, found)
        _calibrated["CPU"] = found
    return _calibrated["CPU"]


def nominal_cpu() -> Device:
    """This machine's CPU with the rates of a usual core: nothing is measured, so all processes on
    machines of one kind have the same row.
    """
    count = cores()
    return Device(
        name="CPU",
        kind="cpu",
        sm_count=count,
        clock=3.0e9,
        dram_bytes_per_s=12e9 * count,
        l2_bytes=_cache_bytes("SC_LEVEL3_CACHE_SIZE", 32 * 2**20),
        l2_bytes_per_s=50e9 * count,
        smem_per_block=_cache_bytes("SC_LEVEL2_CACHE_SIZE", 2**20),
        regs_per_sm=512,
        rates={"f16": 70e9 * count, "tf32": 70e9 * count, "f32": 35e9 * count,
               "special": 1e9 * count},
        launch_s=2e-6,
    )  # fmt: skip


def calibrate_cpu() -> Device:
    """Measures copy and cache bandwidth, fp32 product rate and exponential rate with numpy on all
    cores.
    """
    count = cores()
    last_level = _cache_bytes("SC_LEVEL3_CACHE_SIZE", 32 * 2**20)
    own = _cache_bytes("SC_LEVEL2_CACHE_SIZE", 2**20)

    # In elements: beyond all caches, within one core's cache, sides of products. The smaller one
    # is over before a busy machine takes the core away.
    large, small, squares = 4 * 2**20, 2**14, (512, 256)
    source = [np.ones(large, np.float32) for _ in range(count)]
    target = [np.empty(large, np.float32) for _ in range(count)]
    block = [np.full(small, 0.5, np.float32) for _ in range(count)]
    result = [np.empty(small, np.float32) for _ in range(count)]
    inner = 64  # repeats of an in-cache operation, so that a call's own cost is small beside it

    def copy(core: int) -> None:
        np.copyto(target[core], source[core])

    def multiply(core: int) -> None:
        for _ in range(inner):
            np.multiply(block[core], block[core], out=result[core])

    def exponential(core: int) -> None:
        for _ in range(inner):
            np.exp(block[core], out=result[core])

    with ThreadPoolExecutor(count) as pool:  # numpy releases the interpreter lock in these loops
        copy_s = _best(lambda: list(pool.map(copy, range(count))), 7)
        multiply_s = _best(lambda: list(pool.map(multiply, range(count))), 15)
        exp_s = _best(lambda: list(pool.map(exponential, range(count))), 15)
    products: list[float] = []
    for square in squares:
        left = np.ones((square, square), np.float32)
        seconds = _best(functools.partial(np.matmul, left, left, np.empty_like(left)), 30)
        products.append(2.0 * square**3 / seconds)

    # On a machine busy with other work even the best run is slow; no current core is slower than
    # this.
    product_rate = _step(max(*products, count * LEAST_PRODUCT_RATE))
    return Device(
        name="CPU",
        kind="cpu",
        sm_count=count,
        clock=3.0e9,
        dram_bytes_per_s=_step(2.0 * 4 * large * count / copy_s),
        l2_bytes=last_level,
        # The multiply's block fits a core's own cache; it reads two streams and writes one.
        l2_bytes_per_s=_step(3.0 * 4 * count * inner * small / multiply_s),
        smem_per_block=own,
        regs_per_sm=512,
        # Half precision has no unit of its own on most CPUs: XLA widens it, so fp32's product rate
        # bounds it.
        rates={
            "f16": product_rate,
            "tf32": product_rate,
            # A product is one multiply-add per two FLOPs: the vector lanes that elementwise work
            # also uses. numpy's own elementwise loops are bound by the cache and would rate the
            # lanes ten times too low.
            "f32": _step(product_rate / 2),
            "special": _step(max(count * inner * small / exp_s, product_rate / 128)),
        },
        launch_s=2e-6,
    )


def cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name as the operating system gives it; its architecture where it does not."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _best(run: Callable[[], object], repeats: int) -> float:
    """Least seconds of `repeats` runs after one warm-up: the machine's rate, not its load."""
    run()
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _step(value: float) -> float:
    """`value` rounded to half an octave, so that two calibrations nearly always agree exactly."""
    return float(f"{2.0 ** (round(2 * math.log2(value)) / 2):.6g}")


def _cache_bytes(name: str, otherwise: int) -> int:
    try:
        found = os.sysconf(name)
    except (AttributeError, ValueError, OSError):
        return otherwise
    return found if found > 0 else otherwise


def _load(path: Path) -> Device | None:
    try:
        return Device.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _save(path: Path, device: Device) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(device.to_json(), indent=1, sort_keys=True))
        part.replace(path)
