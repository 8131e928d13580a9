"""The clock that tuning reads: kernels that compete, timed where a wrong one does no harm.

In: functions that were built from plans of one kernel each, and the sGraph whose inputs they take.
Out: seconds, or a sentence for each that has none. See `worker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from prism_jax.ir.sgraph import SGraph
from prism_jax.launch.value import Launch
from prism_jax.measure import worker


class Launched(Protocol):
    """A function that knows the launches it consists of, such as `launch.build.Built`."""

    @property
    def launches(self) -> tuple[Launch, ...]: ...


def kernel_clock(functions: Sequence[Any], sgraph: SGraph, deadline: float) -> list[float | str]:
    """Device seconds of the one kernel of each function, on the same random inputs.

    Args:
      functions: `Launched` ones that compete: of right ones, all write the same.
      sgraph: its inputs' sizes are numbers.
      deadline: `time.monotonic()` after which nothing is waited for.
    """
    known = cast(Sequence[Launched], functions)
    return worker.kernel_seconds([f.launches[0] for f in known], sgraph.inputs, deadline)
