"""What a user calls: `jit`, `optimize`, `explain`, `search`, `bisect`.

In: a user's function. Out: a function (or a report about it). `jit(f)` is `jax.jit` of a function
that rewrites `f` while it is traced, so dispatch, pytrees, static and donated arguments, weak
types, ahead-of-time compilation and caches are jax's own, and a warm call runs no line of ours.
Invariant: what the user's function raises is what it raises under `jax.jit`.

>>> import jax.numpy as jnp
>>> @jit
... def double(x):
...     return x * 2
>>> double(jnp.arange(3))
Array([0, 2, 4], dtype=int32)
"""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import jax

from prism_jax import background, compat, errors, pipeline, swap
from prism_jax.launch import shadow
from prism_jax.options import Options, current, expect, untraced
from prism_jax.report import Bisection, Report
from prism_jax.trace import Traced, trace

for _file in (__file__, compat.__file__, pipeline.__file__):
    compat.hide_frames(_file)

#: Where a function keeps the wrappers made of it, and a wrapper what it does.
_WRAPPERS = "__prism_wrappers__"
_REWRITING = "__prism_rewriting__"


@dataclass(frozen=True)
class _Rewriting:
    """What a wrapper of ours does when it is called, which is while jax traces it.

    `options` None: those in force then. `static` holds the static arguments of the `jax.jit` around
    it; None: there is none.
    """

    fun: Callable[..., Any]
    options: Options | None
    static: Mapping[str, Any] | None
    traces: swap.Traces = field(default_factory=swap.Traces, compare=False, repr=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        options = self.options or current()
        if not options.enabled or compat.under_automatic_sharding() or self._runs_as_python():
            return self.fun(*args, **kwargs)
        try:
            stages = pipeline.default_stages()
        except Exception as error:
            errors.fallback("import", compat.function_name(self.fun), error, options.on_error)
            return self.fun(*args, **kwargs)
        traced = self._trace(args, kwargs, options)
        optimizer = pipeline.Optimizer(options, stages)
        with background.listening() as jobs:
            rewritten = pipeline.rewrite(traced.jaxpr, traced.name, optimizer)
        if jobs:
            swap.when_ready(jobs, self.traces, args, kwargs)
        outs = rewritten(*traced.in_leaves)
        if options.shadow > 0 and rewritten.changed:
            shadow.compare(traced.jaxpr, traced.in_leaves, outs, options.shadow, traced.name)
        return jax.tree.unflatten(traced.out_tree, outs)

    def _trace(self, args: Any, kwargs: Any, options: Options) -> Traced:
        def make() -> Traced:
            return trace(self.fun, args, kwargs, self.static)

        kept = options.tune == "background" and self.static is not None
        return self.traces.get(args, kwargs, make) if kept else make()

    def _runs_as_python(self) -> bool:
        """Whether jax calls the function itself instead of tracing it, to disable jit or to find
        the operation that made a NaN.
        """
        return compat.jit_disabled() or (self.static is not None and not compat.is_tracing())

    def wrapper(self) -> Callable[..., Any]:
        """A plain function with the user's name and signature: jax reads both."""

        @functools.wraps(self.fun)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs)

        wrapper.__name__ = compat.function_name(self.fun)
        wrapper.__dict__.pop(_WRAPPERS, None)
        wrapper.__dict__[_REWRITING] = self
        return wrapper

    def shared_wrapper(self) -> Callable[..., Any]:
        """The same wrapper whenever a function is wrapped in the same way, so that jax's caches
        serve `prism.jit(f)(x)` in a loop as they serve `jax.jit(f)(x)`. The function keeps it.
        """
        if not isinstance(self.fun, types.FunctionType):
            return self.wrapper()
        made: dict[Any, Callable[..., Any]] = self.fun.__dict__.setdefault(_WRAPPERS, {})
        key = (self.options, repr(self.static))
        return made.setdefault(key, self.wrapper())


@overload
def jit(
    fun: Callable[..., Any], /, *, options: Options | None = None, **keywords: Any
) -> jax.stages.Wrapped: ...
@overload
def jit(
    fun: None = None, /, *, options: Options | None = None, **keywords: Any
) -> Callable[[Callable[..., Any]], jax.stages.Wrapped]: ...
def jit(
    fun: Callable[..., Any] | None = None, /, *, options: Options | None = None, **keywords: Any
) -> Any:
    """`jax.jit` of `fun`, with the parts that prism_jax can make faster replaced.

    Usable as `prism.jit(f)`, `@prism.jit` and `@prism.jit(...)`. The result is what `jax.jit`
    returns: it has `lower`, `trace`, `eval_shape`, and can be transformed. Programs that XLA splits
    over several devices are left as they are; use `prism.jit` inside `jax.shard_map` there.

    Under `tune="background"` XLA's version answers until the plans are ready. Then they are
    compiled beside the calls and take its place between two of them: the function is not run in
    Python again, no call waits, and results may change within the accuracy contract from one call
    to the next. Inside another `jax.jit` what was traced there stays until that is traced anew.

    Args:
      fun: any function that `jax.jit` takes.
      options: settings; None: those in force when the function is traced.
      **keywords: every keyword of `jax.jit`, with the same meaning.

    Raises:
      OptionsTypeError: `options` is not an `Options`.
      Exception: whatever `jax.jit` raises for `fun` and the keywords.
    """
    expect(options, current())
    if fun is None:
        return functools.partial(jit, options=options, **keywords)
    plain = jax.jit(fun, **keywords)  # also raises what jax raises, about the user's own function
    if not (options or current()).enabled or _many_devices(keywords):
        return plain
    wrapper = _Rewriting(fun, options, _static(keywords)).shared_wrapper()
    made = jax.jit(wrapper, **keywords)
    wrapper.__dict__[_REWRITING].traces.jitted.add(made)
    return made


def optimize(fun: Callable[..., Any], /, *, options: Options | None = None) -> Callable[..., Any]:
    """The rewriting without jit: a function that traces `fun`, rewrites it, and runs the result.

    For use inside other transformations. Arrays in the arguments are traced; all else in them is
    static. Called outside `jax.jit`, it traces and evaluates anew each time.

    Args:
      fun: a function of arrays, in any pytrees.
      options: settings; None: those in force at each call.

    Raises:
      OptionsTypeError: `options` is not an `Options`.
    """
    expect(options, current())
    return _Rewriting(_function(fun, "optimize"), options, None).shared_wrapper()


def explain(fun: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Report:
    """What prism_jax does with one call of a function, without running it.

    Args:
      fun: a function, or the result of `prism.jit` (its own settings are used then).
      *args: arguments as in a call; arrays may be `jax.ShapeDtypeStruct`s.
      **kwargs: keyword arguments as in a call.

    Returns:
      A `Report`; `str(report)` is readable, `report.to_json()` is JSON types.
    """
    rewriting, keywords = _taken_apart(_function(fun, "explain"))
    start = time.perf_counter()
    with pipeline.listening() as journal, untraced():
        jax.jit(rewriting.wrapper(), **keywords).trace(*args, **kwargs)
    return Report(
        function=compat.function_name(rewriting.fun),
        device=journal.device,
        regions=tuple(journal.regions),
        untouched=journal.untouched,
        refused=tuple(journal.refused),
        seconds=time.perf_counter() - start,
    )


def search(
    fun: Callable[..., Any], /, *args: Any, device: str | None = None, **kwargs: Any
) -> tuple[Any, ...]:
    """What the search finds for each region of one call, for any device model, without running it.

    Args:
      fun: a function, or the result of `prism.jit`.
      *args: arguments as in a call; arrays may be `jax.ShapeDtypeStruct`s.
      device: a row of the device table, such as "H100"; None: the device that jax uses.
      **kwargs: keyword arguments as in a call.

    Returns:
      One `explore.SearchResult` per region: ranked sGraphs, statistics, stop reason, certificate.
    """
    rewriting, keywords = _taken_apart(_function(fun, "search"))
    options = rewriting.options or current()
    options = options.replace(device=device or options.device)
    traced: Any = jax.jit(rewriting.fun, **keywords).trace(*args, **kwargs)
    stages = pipeline.default_stages()
    row = stages.device(options)
    cut = stages.extract(traced.jaxpr, options, compat.function_name(rewriting.fun))
    programs = [step.program for step in cut.steps if hasattr(step, "program")]
    return tuple(stages.explore(program, row, options) for program in programs)


def bisect(fun: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Bisection:
    """Find the region whose plan changes a result: run `fun` with each region replaced alone.

    Args:
      fun: a function, or the result of `prism.jit`.
      *args: arguments of the call in question.
      **kwargs: its keyword arguments.

    Returns:
      A `Bisection`: every region with the difference that it alone makes, worst first.
    """
    rewriting, keywords = _taken_apart(_function(fun, "bisect"))
    want = jax.tree.leaves(jax.jit(rewriting.fun, **keywords)(*args, **kwargs))

    def error(only: frozenset[int] | None) -> float:
        with pipeline.listening(only), untraced():
            got = jax.tree.leaves(jax.jit(rewriting.wrapper(), **keywords)(*args, **kwargs))
        pairs = zip(got, want, strict=True)
        return max((float(shadow.difference(a, b)) for a, b in pairs), default=0.0)

    regions = explain(fun, *args, **kwargs).regions
    rows = [
        (region.name, error(frozenset({number})))
        for number, region in enumerate(regions)
        if region.replaced
    ]
    return Bisection(
        function=compat.function_name(rewriting.fun),
        rows=tuple(sorted(rows, key=lambda row: (-row[1], row[0]))),
        together=error(None) if rows else 0.0,
    )


# -- what a call is about ------------------------------------------------------------------------


def _static(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `jax.jit` that change what is traced."""
    return {
        name: keywords[name] for name in ("static_argnums", "static_argnames") if name in keywords
    }


def _taken_apart(fun: Callable[..., Any]) -> tuple[_Rewriting, dict[str, Any]]:
    """What a function of ours does (any other counts as `prism.jit(fun)`), and its jit keywords."""
    wrapper = getattr(fun, "__wrapped__", None) if compat.is_jitted(fun) else None
    found = getattr(wrapper, _REWRITING, None)
    if not isinstance(found, _Rewriting):
        return _Rewriting(fun, None, {}), {}
    static = dict(found.static or {})
    return _Rewriting(found.fun, found.options, static), static


def _function(fun: Any, caller: str) -> Callable[..., Any]:
    if not callable(fun):
        raise errors.NotAFunctionError(function=caller, value=fun)
    return fun


def _many_devices(keywords: Mapping[str, Any]) -> bool:
    """Whether the keywords ask jax to split the program over several devices."""
    shardings = jax.tree.leaves([keywords.get("in_shardings"), keywords.get("out_shardings")])
    return any(getattr(sharding, "num_devices", 1) > 1 for sharding in shardings)
