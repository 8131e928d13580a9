"""The same program, options and device model give the same plans in the same order, in every
process and under every hash seed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from prism_jax import device

WHAT = """
import json
import sys
import jax.numpy as jnp
from prism_jax.device import Device
from prism_jax.explore import explore
from prism_jax.options import Options
from tests.explore import functions

row = Device.from_json(json.loads(sys.argv[1]))
for name in ("attention", "layer_norm_linear", "rms_norm_mlp", "nearest", "lora"):
    for large in (False, True):
        program = functions.program(name, large, jnp.float16)
        found = explore(program, row, Options(search_seconds=600.0))
        print(name, found.stop, found.certificate, sorted(found.statistics.items()))
        for c in found.candidates:
            print(c.sgraph.digest, c.sizes, c.axioms, c.why, c.bound.hex(), c.estimate.hex())
"""


def printed(row: device.Device, seed: str) -> str:
    code = [sys.executable, "-c", WHAT, json.dumps(row.to_json())]
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    done = subprocess.run(code, env=env, capture_output=True, text=True, check=True, timeout=600)
    return done.stdout


@pytest.mark.parametrize("name", ["H100", "CPU"])
def test_processes_and_hash_seeds_agree(name: str) -> None:
    first, second = (printed(device.row(name), seed) for seed in ("1", "2"))
    assert first.count("\n") > 100
    assert first == second
