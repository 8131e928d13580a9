"""torch.compile and cuDNN's attention beside jax.jit: the same programs in PyTorch, same GPU.

In: a suite and keys of its rows. Out: `DeviceTime` per row, for `torch` and, where the row is
attention, for `cudnn`. Runs in a process of its own, before jax takes the GPU's memory, because the
two frameworks' allocators and profilers do not share a device well: `measure` starts
`python -m prism_jax.bench.torch_baseline SUITE DTYPE KEY...`.

Protocol: `torch.compile(mode="max-autotune-no-cudagraphs")`, without gradients save where the row
is one; kernel time is the sum of kernel durations by torch's profiler (CUPTI), the median over
repetitions; chain time is per call inside one captured CUDA graph of calls. float32 products may
use TF32, as jax's do there. cuDNN's attention is `scaled_dot_product_attention` with that backend
alone, eager, the transposes that the row's layout needs included.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
#: Rows that are gradients of the sum of another row's result in all its arguments.
GRADIENTS = {"causal_grad": "causal"}
#: What stands for "the suite's own dtype" among the words of the command.
OWN = "own"


def measure(
    suite: str, keys: Sequence[str], timeout_s: float = 3600.0, dtype: str | None = None
) -> dict[str, dict[str, DeviceTime]]:
    """Device time of each row that torch could run, by implementation (`torch`, `cudnn`), then by
    key; rows it could not are left out.

    Raises:
      RuntimeError: torch is not installed, or its process died before any row.
    """
    command = [sys.executable, "-m", __name__, suite, dtype or OWN, *keys]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    found: dict[str, dict[str, DeviceTime]] = {}
    for line in answer.stdout.splitlines():
        if line.startswith("{"):
            values = json.loads(line)
            times = found.setdefault(values.pop("implementation"), {})
            times[values.pop("key")] = DeviceTime.from_json(values)
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


def attention(torch: Any) -> Mapping[str, Callable[..., Any]]:
    """The rows that are attention, by cuDNN."""
    from_torch = torch.nn.attention

    def call(q: Any, k: Any, v: Any, **options: Any) -> Any:
        with from_torch.sdpa_kernel(from_torch.SDPBackend.CUDNN_ATTENTION):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    def folded(q: Any, k: Any, v: Any) -> Any:
        return call(q[:, None], k.transpose(-1, -2)[:, None], v[:, None], scale=1.0)[:, 0]

    def causal(q: Any, k: Any, v: Any) -> Any:
        found = call(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True)
        return found.transpose(1, 2)

    return {"gqa": folded, "attention": folded, "causal": causal}


def with_gradients(torch: Any, table: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """The table and the gradients of its programs that are rows."""

    def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with torch.enable_grad():
                inputs = [x.detach().requires_grad_() for x in arguments]
                return torch.autograd.grad(function(*inputs).float().sum(), inputs)

        return run

    return {name: gradient(table[of]) for name, of in GRADIENTS.items() if of in table}


def compiled_programs(torch: Any) -> dict[str, Callable[..., Any]]:
    """Every row's program, compiled; of gradients the forward pass is, which compiles both."""
    table = {
        name: torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False)
        for name, function in programs(torch).items()
    }
    return {**table, **with_gradients(torch, table)}


def device_time(torch: Any, compiled: Callable[..., Any], arguments: Sequence[Any]) -> DeviceTime:
    """Kernel time and captured-chain time of one call."""
    with torch.no_grad():
        for _ in range(3):
            compiled(*arguments)
        torch.cuda.synchronize()
        kernels, samples, chain = 0, list[float](), None
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
        with contextlib.suppress(RuntimeError):  # what cannot be captured has no chain
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
    suite, dtype, *keys = words
    cudnn = attention(torch)
    implementations = {
        "torch": compiled_programs(torch),
        "cudnn": {**cudnn, **with_gradients(torch, cudnn)},
    }
    for row in suites.rows(suite):
        row = row if dtype == OWN or row.maker is not None else row.retyped(dtype)
        if row.key not in keys:
            continue
        _, arguments = row.build(0)
        on_gpu = [_tensor(torch, value) for value in arguments]
        for name, table in implementations.items():
            if row.name not in table:
                continue
            try:
                time = device_time(torch, table[row.name], on_gpu)
            except Exception as error:  # one program's failure must not lose the others' times
                print(f"{row.key}: {name}: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            values = dataclasses.asdict(time)
            print(json.dumps({"implementation": name, "key": row.key, **values}), flush=True)
    return 0


def _tensor(torch: Any, value: Any) -> Any:
    array = np.array(value)
    if array.dtype.name == "bfloat16":  # numpy has it from elsewhere, torch does not know that
        return torch.from_numpy(array.astype(np.float32)).cuda().to(torch.bfloat16)
    return torch.from_numpy(array).cuda()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
