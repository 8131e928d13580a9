"""What this machine is, as far as numbers measured on it depend on it.

In: nothing. Out: the processor's name, a GPU's clocks, the versions that a record names.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform as host
import subprocess
from collections.abc import Iterator

#: Distributions whose versions a record names, where they are installed.
VERSIONED = ("jax", "jaxlib", "triton", "jax-triton", "numpy", "flax", "equinox")


def versions() -> Iterator[tuple[str, str]]:
    """Name and version of every distribution that is there."""
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


def processor() -> str:
    """The processor's name and how many cores this process may use."""
    name = host.processor() or host.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"


def clocks() -> str:
    """SM and memory clocks as the driver's tool reports them; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return answer.stdout.strip().splitlines()[0]
    return ""
