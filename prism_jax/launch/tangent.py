"""Derivatives of `prism_call` that stay kernels: `prism_tangent`, linear, and its transpose.

In: the region's primal inputs and outputs, and tangents. Out: tangents of the outputs. The JVP of
`prism_call` binds the plan for the primal and `prism_tangent` for the tangent. Its program is the
JVP of the original region with every output that it needs taken from outside and all else
recomputed, so what reverse mode keeps between the two passes is the region's inputs and outputs,
never what lies between them (for attention: linear in the sequence, not quadratic). Its transpose
is the region's VJP as an ordinary program of inputs and cotangents, which is planned on its own.
Invariant: a `prism_tangent` is linear in the operands after the first `residuals`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from prism_jax import compat
from prism_jax.launch.call import Replan, prism_call_p, run_eagerly, vmapped
from prism_jax.launch.region import FrozenJaxpr

prism_tangent_p = compat.Primitive("prism_tangent")
prism_tangent_p.multiple_results = True


@dataclass(frozen=True)
class _Rule:
    """How to bind the tangent of a region for one set of nonzero tangents.

    `program` is None where it cannot be a parameter (the region's own rules have effects or close
    over values being traced); `jvp` then computes it in place.
    """

    program: FrozenJaxpr | None
    jvp: compat.ClosedJaxpr
    consts: tuple[Any, ...]
    kept: tuple[bool, ...]
    kept_tangents: tuple[bool, ...]
    out_nonzero: tuple[bool, ...]


@functools.lru_cache(maxsize=1024)
def _rule(region: FrozenJaxpr, nonzero: tuple[bool, ...], _: Any) -> _Rule:
    jvp, out_nonzero = compat.jvp_program(region.closed, nonzero)
    inputs, outputs = len(region.closed.in_avals), len(region.closed.out_avals)
    if jvp.effects or any(compat.is_tracer(const) for const in compat.constants(jvp)):
        return _Rule(None, jvp, (), (), (), tuple(out_nonzero))
    avals = (*jvp.in_avals[:inputs], *region.closed.out_avals, *jvp.in_avals[inputs:])
    program = compat.trace_flat(_with_outputs(jvp, inputs, outputs), avals)
    program, consts = compat.to_inputs(program)
    program, used = compat.dce(program)
    first = len(consts) + inputs + outputs
    return _Rule(
        program=FrozenJaxpr(program, f"{region.name}_jvp"),
        jvp=jvp,
        consts=tuple(const for const, use in zip(consts, used, strict=False) if use),
        kept=tuple(used[len(consts) : first]),
        kept_tangents=tuple(used[first:]),
        out_nonzero=tuple(out_nonzero),
    )


def _with_outputs(jvp: compat.ClosedJaxpr, inputs: int, outputs: int) -> Any:
    """The tangent part of a JVP as a function (inputs, outputs, tangents) -> output tangents.

    Wherever the JVP uses a value that is also an output of the region, the given output is used, so
    that what only led to it is not computed again.
    """
    jaxpr = jvp.jaxpr
    defined = {var for eqn in jaxpr.eqns for var in eqn.outvars}
    given = {
        var: place
        for place, var in enumerate(jaxpr.outvars[:outputs])
        if not isinstance(var, compat.Literal) and var in defined
    }
    needed = {
        atom
        for atom in jaxpr.outvars[outputs:]
        if not isinstance(atom, compat.Literal) and atom not in given
    }
    equations = []
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            equations.append(eqn)
            needed |= {
                atom
                for atom in eqn.invars
                if not isinstance(atom, compat.Literal) and atom not in given
            }
    equations.reverse()

    def fun(*args: Any) -> list[Any]:
        values, outs, tangents = (
            args[:inputs],
            args[inputs : inputs + outputs],
            args[inputs + outputs :],
        )
        env = dict(zip(jaxpr.constvars, compat.constants(jvp), strict=True))
        env.update(zip(jaxpr.invars, (*values, *tangents), strict=True))
        env.update({var: outs[place] for var, place in given.items()})
        for eqn in equations:
            results = compat.bind_equation(eqn, [compat.read(env, atom) for atom in eqn.invars])
            for var, value in zip(eqn.outvars, results, strict=True):
                if var not in given:
                    env[var] = value
        return [compat.read(env, atom) for atom in jaxpr.outvars[outputs:]]

    return fun


def _has_tangent(tangent: Any) -> bool:
    return (
        not isinstance(tangent, compat.Zero) and compat.aval_of(tangent).dtype != jax.dtypes.float0
    )


def tangents_of(
    region: FrozenJaxpr,
    replan: Replan,
    primals: Sequence[Any],
    outs: Sequence[Any],
    tangents: Sequence[Any],
) -> list[Any]:
    """The output tangents of a region: one per output, symbolic zeros where there is none.

    Args:
      region: the original program.
      replan: plans the programs made here.
      primals: its inputs.
      outs: its outputs at these inputs.
      tangents: one per input; symbolic zeros for inputs that do not vary.
    """
    nonzero = tuple(_has_tangent(tangent) for tangent in tangents)
    zeros = [compat.Zero(compat.aval_of(out).to_tangent_aval()) for out in outs]
    if not any(nonzero):
        return zeros
    moving = [tangent for tangent, moves in zip(tangents, nonzero, strict=True) if moves]
    rule = _rule(region, nonzero, compat.context_key())
    if rule.program is None:
        results = compat.evaluate(rule.jvp, *primals, *moving)[len(outs) :]
    else:
        kept = [v for v, keep in zip((*primals, *outs), rule.kept, strict=True) if keep]
        moving = [t for t, keep in zip(moving, rule.kept_tangents, strict=True) if keep]
        results = prism_tangent_p.bind(
            *rule.consts, *kept, *moving,
            program=rule.program, residuals=len(rule.consts) + len(kept), replan=replan,
        )  # fmt: skip
    found = iter(results)
    return [
        next(found) if moves else zero for zero, moves in zip(zeros, rule.out_nonzero, strict=True)
    ]


def _call_jvp(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    plan: Any,
    region: FrozenJaxpr,
    replan: Replan,
) -> tuple[list[Any], list[Any]]:
    outs = prism_call_p.bind(*primals, plan=plan, region=region, replan=replan)
    return outs, tangents_of(region, replan, primals, outs, tangents)


compat.ad.primitive_jvps[prism_call_p] = _call_jvp


# -- prism_tangent -----------------------------------------------------------------------------


def _abstract(*_: Any, program: FrozenJaxpr, **__: Any) -> list[Any]:
    return list(program.closed.out_avals)


prism_tangent_p.def_abstract_eval(_abstract)
prism_tangent_p.def_impl(functools.partial(run_eagerly, prism_tangent_p))


def _batch(
    args: Sequence[Any],
    dims: Sequence[Any],
    *,
    program: FrozenJaxpr,
    residuals: int,
    replan: Replan,
) -> tuple[list[Any], list[int]]:
    avals = tuple(compat.aval_of(arg) for arg in args)
    closed = vmapped(program, tuple(dims), avals, compat.context_key())
    closed, consts = compat.to_inputs(closed)
    outs = prism_tangent_p.bind(
        *consts, *args, program=FrozenJaxpr(closed, program.name),
        residuals=len(consts) + residuals, replan=replan,
    )  # fmt: skip
    return outs, [0] * len(outs)


compat.batching.primitive_batchers[prism_tangent_p] = _batch


def _tangent_jvp(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    program: FrozenJaxpr,
    residuals: int,
    replan: Replan,
) -> tuple[list[Any], list[Any]]:
    params = {"program": program, "residuals": residuals, "replan": replan}
    outs = prism_tangent_p.bind(*primals, **params)
    if any(_has_tangent(tangent) for tangent in tangents[:residuals]):
        return outs, tangents_of(program, replan, primals, outs, tangents)
    if not any(_has_tangent(tangent) for tangent in tangents):
        return outs, [compat.Zero(compat.aval_of(out).to_tangent_aval()) for out in outs]
    moving = [compat.ad.instantiate_zeros(tangent) for tangent in tangents[residuals:]]
    return outs, prism_tangent_p.bind(*primals[:residuals], *moving, **params)


compat.ad.primitive_jvps[prism_tangent_p] = _tangent_jvp


@functools.lru_cache(maxsize=1024)
def _transposed(
    program: FrozenJaxpr,
    residuals: int,
    wanted: tuple[bool, ...],
    nonzero: tuple[bool, ...],
    _: Any,
) -> compat.ClosedJaxpr:
    """(residuals, nonzero cotangents) -> cotangents of the wanted tangents."""
    tangents = program.closed.in_avals[residuals:]
    asked = [aval for aval, want in zip(tangents, wanted, strict=True) if want]
    outs = program.closed.out_avals
    given = [aval for aval, moves in zip(outs, nonzero, strict=True) if moves]

    def fun(*args: Any) -> list[Any]:
        fixed, cotangents = args[:residuals], iter(args[residuals:])

        def linear(*moving: Any) -> list[Any]:
            left = iter(moving)
            values = [
                next(left) if want else _zeros(aval)
                for aval, want in zip(tangents, wanted, strict=True)
            ]
            return program(*fixed, *values)

        pull = jax.linear_transpose(linear, *asked)
        return list(
            pull(
                [
                    next(cotangents) if moves else _zeros(aval)
                    for aval, moves in zip(outs, nonzero, strict=True)
                ]
            )
        )

    return compat.trace_flat(fun, (*program.closed.in_avals[:residuals], *given))


def _zeros(aval: Any) -> Any:
    return jnp.zeros(aval.shape, aval.dtype)


def _transpose(
    cotangents: Sequence[Any], *args: Any, program: FrozenJaxpr, residuals: int, replan: Replan
) -> list[Any]:
    wanted = tuple(compat.ad.is_undefined_primal(arg) for arg in args[residuals:])
    nonzero = tuple(_has_tangent(cotangent) for cotangent in cotangents)
    nothing = [None] * len(args)
    if not any(nonzero) or not any(wanted):
        return (
            [compat.Zero(arg.aval) if compat.ad.is_undefined_primal(arg) else None for arg in args]
            if not any(nonzero)
            else nothing
        )
    closed = _transposed(program, residuals, wanted, nonzero, compat.context_key())
    moving = [c for c, moves in zip(cotangents, nonzero, strict=True) if moves]
    name = program.name.removesuffix("_jvp") + "_vjp"
    results = iter(replan(closed, name)(*args[:residuals], *moving))
    return [*nothing[:residuals], *(next(results) if want else None for want in wanted)]


compat.ad.primitive_transposes[prism_tangent_p] = _transpose


# -- prism_call, where it is linear in some of its inputs ---------------------------------------


@functools.lru_cache(maxsize=1024)
def _reordered(region: FrozenJaxpr, order: tuple[int, ...], _: Any) -> FrozenJaxpr:
    """The region as a function of its inputs in another order."""

    def fun(*args: Any) -> list[Any]:
        placed = dict(zip(order, args, strict=True))
        return region(*(placed[n] for n in range(len(order))))

    avals = region.closed.in_avals
    return FrozenJaxpr(compat.trace_flat(fun, [avals[n] for n in order]), region.name)


def _call_transpose(
    cotangents: Sequence[Any], *args: Any, plan: Any, region: FrozenJaxpr, replan: Replan
) -> list[Any]:
    """For what transposes a function itself, as solvers do: gradients go through the JVP."""
    linear = tuple(map(compat.ad.is_undefined_primal, args))
    order = tuple(sorted(range(len(args)), key=linear.__getitem__))  # those it is linear in last
    found = _transpose(
        cotangents,
        *(args[n] for n in order),
        program=_reordered(region, order, compat.context_key()),
        residuals=len(args) - sum(linear),
        replan=replan,
    )
    placed = dict(zip(order, found, strict=True))
    return [placed[n] for n in range(len(args))]


compat.ad.primitive_transposes[prism_call_p] = _call_transpose
