"""A decision as an entry of the cache, and back as something that runs.

In: what instantiation chose, with its report. Out: an `Entry`: the plan as text (or that XLA's own
version stays), its compiled kernels with their launches, sources, the report, and what the search
had to spend. Invariant: a plan that comes back is the plan that went in (its digest is compared)
and takes and returns the arrays of the program it is asked for; anything else is a `ForeignError`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

from prism_jax.cache.data import ForeignError, pack, unpack
from prism_jax.cache.entry import Entry
from prism_jax.cache.key import BUDGETS, Key
from prism_jax.instantiate.plan import Plan
from prism_jax.ir.nodes import Tensor
from prism_jax.ir.sgraph import Kernel
from prism_jax.launch.value import Launch
from prism_jax.options import Options
from prism_jax.report import Decision, RegionReport


@dataclasses.dataclass(frozen=True)
class Kept:
    """What an entry holds. `plan` None: XLA's own version stays. `sources`: one text per launch.
    `budgets`: seconds that the search and the tuning had; `made`: when, Unix time.
    """

    program: str
    plan: Plan | None
    digest: str
    launches: tuple[Launch, ...]
    sources: tuple[str, ...]
    report: RegionReport
    budgets: tuple[float, ...]
    made: float


def entry(key: Key, program: Any, decision: Decision, options: Options) -> Entry:
    """The entry of a decision.

    Raises:
      TypeError: it holds what no entry can (which a test of every room's values prevents).
    """
    chosen, blobs = decision.chosen, list[bytes]()
    plan: Plan | None = chosen.plan
    built = chosen.function if plan is not None else None
    kept = Kept(
        program=program.digest,
        plan=plan,
        digest=plan.digest if plan is not None else "",
        launches=built.launches if built is not None else (),
        sources=_kernel_texts(plan, built),
        report=decision.report,
        budgets=tuple(getattr(options, name) for name in BUDGETS),
        made=time.time(),
    )
    return Entry({"key": dict(key.parts), **pack(kept, blobs)}, tuple(blobs))


def _kernel_texts(plan: Plan | None, built: Any) -> tuple[str, ...]:
    """The sources of a plan's kernels. Those of library calls are written again from the sGraph."""
    if plan is None or not built.launches:
        return ()
    nodes = zip(plan.sgraph.nodes, built.sources, strict=True)
    return tuple(source for node, source in nodes if isinstance(node, Kernel))


def kept(entry: Entry) -> Kept:
    """What an entry holds, checked.

    Raises:
      ForeignError: it is of another version, or its parts do not fit each other.
    """
    data = {name: value for name, value in entry.values.items() if name != "key"}
    found = unpack(Kept, data, entry.blobs)
    if found.plan is not None and found.plan.digest != found.digest:
        raise ForeignError("its plan is not the one that was kept")
    if len(found.launches) != len(found.sources):
        raise ForeignError("its kernels have no sources")
    return found


def fits(plan: Plan, program: Any) -> None:
    """Raises ForeignError unless the plan takes and returns what the program does."""
    takes = _types(plan.sgraph.inputs) == _types(program.inputs)
    gives = _types(plan.sgraph.outputs) == _types(s.tensor for s in program.outputs)
    if not (takes and gives):
        raise ForeignError("its plan takes or returns other arrays than the program")


def _types(tensors: Iterable[Tensor]) -> list[tuple[Any, str]]:
    return [(tensor.shape, tensor.dtype) for tensor in tensors]
