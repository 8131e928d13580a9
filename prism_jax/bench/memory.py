"""Peak temporary memory of one call on a CPU, as the operating system sees it.

In: a suite, the key of a row, which of jax.jit and prism.jit, and where plans are. Out: bytes.
XLA's own report is 0 for some CPU programs, so the call is made in a fresh process: compiled ahead
of time, the memory that compiling freed handed back, the system's high-water mark reset, then
called for the first time (a second call may find its buffers in a pool). What the mark shows above
what was there before is temporaries and outputs; the outputs' size is subtracted.

Linux only: elsewhere `measure` gives None.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from prism_jax.bench import suites

Version = Literal["jit", "prism"]
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(
    suite: str, key: str, version: Version, plans: Path | None = None, timeout_s: float = 600.0
) -> int | None:
    """Bytes of temporaries of one call; None where this system cannot tell.

    Args:
      suite: of the row.
      key: of the row.
      version: which function is called.
      plans: folder of the cache whose plans `prism.jit` runs; None: it plans anew.
      timeout_s: of the process.

    Raises:
      subprocess.CalledProcessError: the row's own program failed.
    """
    if not RESET.exists():
        return None
    command = [sys.executable, "-m", __name__, suite, key, version, *([plans] if plans else [])]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True)
    return int(answer.stdout.split()[-1])


def resident(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes of this process that are (or at most were) in memory."""
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None, f"no {field} in {STATUS}"
    return int(found[1]) * 1024


def main(words: Sequence[str]) -> int:
    """Measures in this process and prints the bytes."""
    suite, key, version, *plans = words
    jax.config.update("jax_platforms", "cpu")
    rows = [row for row in suites.rows(suite) if "cpu" in row.platforms and row.key == key]
    function, arguments = rows[0].build(0)
    prism = importlib.import_module("prism_jax")
    jitted = jax.jit(function) if version == "jit" else prism.jit(function)
    cache = {"cache": "read", "cache_dir": plans[0]} if plans else {"cache": "off"}
    with prism.options(**cache):
        compiled = jitted.lower(*arguments).compile()
    # The runtime's own threads and libraries come with the first product of a process.
    jax.block_until_ready(jax.jit(lambda x: jnp.exp(x @ x))(jnp.ones((512, 512))))
    trim()
    RESET.write_text("5")  # the high-water mark becomes what is resident now
    before = resident("VmRSS")
    results = jax.block_until_ready(compiled(*arguments))
    peak = resident("VmHWM")
    print(max(0, peak - before - sum(leaf.nbytes for leaf in jax.tree.leaves(results))))
    return 0


def trim() -> None:
    """Hands free memory of the C allocator back to the system, so that reuse of it shows."""
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
