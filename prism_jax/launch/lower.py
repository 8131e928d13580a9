"""Lowering of `prism_call` and `prism_tangent`: the only place where a platform is known.

In: a lowering context, operands, a plan. Out: StableHLO values. A plan is lowered by tracing its
function. The original region is lowered instead where XLA splits the program over several devices
(a kernel would gather everything on each), on platforms that the plan's back end does not run on,
and where lowering the plan fails (said once). Invariant: what is lowered returns the region's
shapes and dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from prism_jax import compat, errors
from prism_jax.launch.call import Replan, Runnable, prism_call_p
from prism_jax.launch.region import FrozenJaxpr
from prism_jax.launch.tangent import prism_tangent_p

#: Where the plans of each back end run: jax's names of platforms, or None for everywhere.
PLATFORMS: dict[str, tuple[str, ...] | None] = {"jnp": None, "lax": None, "triton": ("cuda",)}


def _lower_original(ctx: Any, region: FrozenJaxpr, operands: Sequence[Any]) -> Sequence[Any]:
    return compat.mlir.lower_fun(region, multiple_results=True)(ctx, *operands)


def _lower_plan(
    ctx: Any, plan: Runnable, region: FrozenJaxpr, operands: Sequence[Any]
) -> Sequence[Any]:
    def run(*args: Any) -> list[Any]:
        with jax.named_scope(region.name):
            return list(plan.call(*args))

    # Traced first, so that a plan that cannot be traced leaves nothing behind in the module.
    closed = compat.trace_flat(run, region.closed.in_avals)
    got, want = _types(closed), _types(region.closed)
    if got != want:
        raise errors.PlanMismatchError(where=region.name, got=got, want=want)

    def evaluate(*args: Any) -> list[Any]:
        return compat.evaluate(closed, *args)

    return compat.mlir.lower_fun(evaluate, multiple_results=True)(ctx, *operands)


def _types(closed: compat.ClosedJaxpr) -> str:
    return ", ".join(f"{aval.dtype}{list(aval.shape)}" for aval in closed.out_avals)


def _lower_call(
    platform: str | None,
    ctx: Any,
    *operands: Any,
    plan: Runnable,
    region: FrozenJaxpr,
    replan: Replan,
) -> Sequence[Any]:
    where = PLATFORMS.get(plan.backend, ())
    if compat.spans_devices(ctx) or not (where is None or platform in where):
        return _lower_original(ctx, region, operands)
    try:
        return _lower_plan(ctx, plan, region, operands)
    except Exception as error:
        errors.fallback("launch", region.name, error, replan.on_error)
    return _lower_original(ctx, region, operands)


def _lower_tangent(
    ctx: Any, *operands: Any, program: FrozenJaxpr, residuals: int, replan: Replan
) -> Sequence[Any]:
    del residuals
    # The tangent of a `custom_vjp` has no value: jax's own error says so.
    if compat.spans_devices(ctx) or compat.only_transposes(program.closed):
        return _lower_original(ctx, program, operands)
    planned = replan(program.closed, program.name)
    return compat.mlir.lower_fun(planned, multiple_results=True)(ctx, *operands)


def _rule_for(platform: str | None) -> Callable[..., Sequence[Any]]:
    def rule(ctx: Any, *operands: Any, **params: Any) -> Sequence[Any]:
        return _lower_call(platform, ctx, *operands, **params)

    return rule


# Every platform takes the first rule, save those that some back end is limited to.
compat.mlir.register_lowering(prism_call_p, _rule_for(None))
for _name in sorted({name for names in PLATFORMS.values() for name in names or ()}):
    compat.mlir.register_lowering(prism_call_p, _rule_for(_name), platform=_name)
compat.mlir.register_lowering(prism_tangent_p, _lower_tangent)
