"""torch.compile beside jax.jit: the same programs in PyTorch, timed on the same GPU.

In: a suite and keys of its rows. Out: `DeviceTime` per row. Runs in a process of its own, before
jax takes the GPU's memory, because the two frameworks' allocators and profilers do not share a
device well: `measure` starts `python -m prism_jax.bench.torch_baseline SUITE KEY...`.

Protocol: `torch.compile(mode="max-autotune-no-cudagraphs")` without gradients; kernel time is the
sum of kernel durations by torch's profiler (CUPTI), the median over repetitions; chain time is per
call inside one captured CUDA graph of calls. float32 products may use TF32, as jax's do there.
"""

from __future__ import annotations

import importlib
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prism_jax.bench import suites
from prism_jax.bench.records import DeviceTime
from prism_jax.bench.suites.flash import SINKHORN_EPSILON

CALLS_PER_GRAPH, REPETITIONS = 20, 30


def measure(suite: str, keys: Sequence[str], timeout_s: float = 3600.0) -> dict[str, DeviceTime]:
    """Device time of each row that torch could run, by key; rows it could not are left out.

    Raises:
      RuntimeError: torch is not installed, or its process died before any row.
    """
    command = [sys.executable, "-m", __name__, suite, *keys]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    found: dict[str, DeviceTime] = {}
    for line in answer.stdout.splitlines():
        if line.startswith("{"):
            values = json.loads(line)
            found[values.pop("key")] = DeviceTime(**values)
    if not found:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise RuntimeError(f"torch.compile gave no times: {last}")
    return found


def programs(torch: Any) -> Mapping[str, Callable[..., Any]]:
    """The suites' programs by row name, written as a PyTorch user would write them."""
    functional = torch.nn.functional

    def rms_norm(x: Any) -> Any:
        wide = x.float()
        scale = torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)
        return (wide * scale).to(x.dtype)

    def l2_norm(x: Any) -> Any:
        wide = x.float()
        scale = torch.rsqrt((wide * wide).sum(-1, keepdim=True) + 1e-6)
        return (wide * scale).to(x.dtype)

    def gqa(q: Any, k: Any, v: Any) -> Any:
        return torch.softmax(q @ k, -1) @ v

    def qknorm(q: Any, k: Any, v: Any) -> Any:
        k = rms_norm(k.transpose(-1, -2)).transpose(-1, -2)
        return torch.softmax(rms_norm(q) @ k, -1) @ v

    def gated(x: Any, a: Any, b: Any) -> Any:
        return functional.silu(x @ a) * (x @ b)

    def norm_gated(x: Any, a: Any, b: Any) -> Any:
        y = rms_norm(x)
        return (y @ a) * (y @ b)

    def causal(q: Any, k: Any, v: Any) -> Any:
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v)

    def squares(x: Any, y: Any) -> Any:
        return (x * x).sum(-1)[:, None] + (y * y).sum(-1)[None, :] - 2 * x @ y.T

    def sinkhorn(x: Any, y: Any, g: Any) -> Any:
        eps = SINKHORN_EPSILON
        return -eps * torch.logsumexp((g[None, :] - squares(x, y)) / eps, 1)

    def linear_ce(h: Any, w: Any, labels: Any) -> Any:
        return functional.cross_entropy((h @ w).float(), labels.long())

    return {
        "gqa": gqa,
        "attention": gqa,
        "qknorm": qknorm,
        "qk_norm_attention": lambda q, k, v: torch.softmax(rms_norm(q) @ k, -1) @ v,
        "rmsnorm": lambda x, w: rms_norm(x) @ w,
        "rms_norm": lambda x, w: rms_norm(x) @ w,
        "gatedmlp": gated,
        "swiglu": gated,
        "rmsnorm_mlp": norm_gated,
        "lora": lambda x, w, a, b: x @ w + (x @ a) @ b,
        "ntrans": lambda x, h, a: l2_norm(x + a * (l2_norm(h) - x)),
        "causal": causal,
        "rbf": lambda x, y, v: torch.exp(-squares(x, y) / 2) @ v,
        "laplace": lambda x, y, v: torch.exp(-(x[:, None] - y[None]).abs().sum(-1)) @ v,
        "sinkhorn": sinkhorn,
        "kmeans": lambda x, c: squares(x, c).argmin(1),
        "linear_ce": linear_ce,
        "lowrank": lambda x, a, b: x @ (a @ b),
        "linear_attention": lambda q, k, v: (q @ k.T) @ v,
        "pairwise": lambda x, y: ((x[:, None] - y[None]) ** 2).sum(-1),
        "scaled_rows": lambda x, s, w: (x / s) @ w,
        "scaled_columns": lambda x, c, w: (x * c) @ w,
        "shared": lambda x, q, k, v: (x @ q, x @ k, x @ v),
    }


def device_time(torch: Any, function: Callable[..., Any], arguments: Sequence[Any]) -> DeviceTime:
    """Kernel time and captured-chain time of one compiled call."""
    compiled = torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False)
    with torch.no_grad():
        for _ in range(3):
            compiled(*arguments)
        torch.cuda.synchronize()
        kernels, samples = 0, list[float]()
        for _ in range(REPETITIONS):
            with torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CUDA]
            ) as profile:
                compiled(*arguments)
                torch.cuda.synchronize()
            times = [
                event.device_time_total
                for event in profile.events()
                # The launches are events of the host, and would count each kernel a second time.
                if event.device_type == torch.autograd.DeviceType.CUDA
            ]
            kernels = len(times)
            samples.append(sum(times))
        chain = _chain(torch, compiled, arguments)
    quarter, middle, three_quarters = statistics.quantiles(samples, n=4)
    return DeviceTime(
        kernel_us=middle,
        kernel_spread=(three_quarters - quarter) / 2 / middle,
        kernels=kernels,
        chain_us=chain,
    )


def _chain(torch: Any, compiled: Callable[..., Any], arguments: Sequence[Any]) -> float:
    """Microseconds per call of calls captured in one CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_GRAPH):
            compiled(*arguments)
    samples: list[float] = []
    for _ in range(REPETITIONS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1e3 / CALLS_PER_GRAPH)
    return statistics.median(samples)


def main(words: Sequence[str]) -> int:
    """Times rows and prints one JSON object per row."""
    torch: Any = importlib.import_module("torch")
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_platforms", "cpu")  # jax only draws the arguments here
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    suite, *keys = words
    table = programs(torch)
    for row in suites.rows(suite):
        if row.key not in keys or row.name not in table:
            continue
        _, arguments = row.build(0)
        on_gpu = [torch.from_numpy(np.array(value)).cuda() for value in arguments]
        try:
            time = device_time(torch, table[row.name], on_gpu)
        except Exception as error:  # one program's failure must not lose the others' times
            print(f"{row.key}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        values = {
            "key": row.key,
            "kernel_us": time.kernel_us,
            "kernel_spread": time.kernel_spread,
            "kernels": time.kernels,
            "chain_us": time.chain_us,
        }
        print(json.dumps(values), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
