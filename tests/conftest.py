"""Settings every test shares: the Hypothesis profiles.

Profiles: `ci` (default) draws the same examples on every run and has no deadline, because the first
call of a jitted function compiles; `long` draws thousands and is what `make test-long` uses.
"""

from __future__ import annotations

import os
from typing import Any

# Before anything imports the package: tests neither read nor fill the user's cache. Those of the
# cache name a folder of their own.
os.environ["PRISM_JAX_CACHE"] = "off"

from hypothesis import HealthCheck, settings

_COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    # Programs are drawn node by node, which Hypothesis takes for slow data generation.
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("ci", derandomize=True, database=None, max_examples=60, **_COMMON)
settings.register_profile("long", max_examples=10_000, **_COMMON)
settings.load_profile("ci")
