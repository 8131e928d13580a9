"""The suites by name. Importing a suite builds rows (shapes and functions), never an array.

>>> sorted({row.name for row in rows("mirage")})
['gatedmlp', 'gqa', 'lora', 'ntrans', 'qknorm', 'rmsnorm']
"""

from __future__ import annotations

import importlib
from typing import cast

from prism_jax.bench.workload import Workload

NAMES = ("mirage", "prism", "flash", "algebra", "models")


def rows(suite: str) -> tuple[Workload, ...]:
    """All rows of a suite, on every platform. Raises KeyError for a name not in `NAMES`."""
    if suite not in NAMES:
        raise KeyError(f"no suite {suite!r}; there are {', '.join(NAMES)}")
    module = importlib.import_module(f"prism_jax.bench.suites.{suite}")
    return cast("tuple[Workload, ...]", module.ROWS)
