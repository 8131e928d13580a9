"""One candidate tuned from its first tries to the end, as `choose` does it for the best of many."""

from __future__ import annotations

import math

from prism_jax.device import Device
from prism_jax.explore import Candidate
from prism_jax.instantiate.plan import Plan
from prism_jax.instantiate.tune import Clock, Emitter, Trials, survey


def tuned(
    candidate: Candidate,
    device: Device,
    emitter: Emitter,
    clock: Clock,
    deadline: float,
    trials: Trials,
    beaten: float = math.inf,
) -> Plan | None:
    """One candidate's best measured plan, or None if none of its kernels' candidates runs before
    the deadline. `beaten`: seconds of what it has to beat, as far as known.
    """
    (tuning,) = survey([candidate], device, emitter, clock, deadline, trials, {})
    tuning.refine(emitter, clock, deadline, beaten)
    return tuning.plan()
