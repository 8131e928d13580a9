"""The only file that knows which jax is installed (0.10.2 on Python 3.11, 0.11 and 0.12 on 3.12).

In: jaxprs, equations, lowering contexts. Out: the same questions with one answer on every supported
version. What differs: `ClosedJaxpr` and `Jaxpr` are one class from 0.11 on, `scan` renamed its
parameters, and some interpreters live in `jax._src` only. Invariant: evaluating a jaxpr here keeps
weak types, equation contexts, name stacks, source lines and effects, as jax's own evaluator does.
What touches jax's internals is in one file, long as that is, so that a new jax is met in one place.

>>> import jax.numpy as jnp
>>> closed = trace_flat(lambda x: [x + 1], [aval_of(jnp.float32(2))])
>>> evaluate(closed, jnp.float32(2))
[Array(3., dtype=float32)]
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import os
import sys
import threading
import types
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.core
from jax._src import config as _config
from jax._src import core as _core
from jax._src import distributed as _distributed
from jax._src import pjit as _pjit
from jax._src import source_info_util as _source_info
from jax._src import traceback_util as _tracebacks
from jax._src.interpreters import ad as _ad
from jax._src.interpreters import partial_eval as _pe
from jax._src.sharding_impls import ShardingContext, SPMDAxisContext
from jax._src.util import fun_name as _fun_name
from jax.interpreters import ad, batching, mlir
from jax.interpreters import partial_eval as pe

if TYPE_CHECKING:
    from jax.extend.core import (
        ClosedJaxpr,
        Jaxpr,
        JaxprEqn,
        Literal,
        Primitive,
        Var,
        jaxprs_in_params,
    )
else:
    # The same classes by the door that does not import Pallas, which takes 40 ms.
    from jax._src.core import Jaxpr, JaxprEqn, Literal, Primitive, Var, jaxprs_in_params

    ClosedJaxpr = getattr(_core, "ClosedJaxpr", Jaxpr)

__all__ = [
    "ClosedJaxpr", "Jaxpr", "JaxprEqn", "Literal", "Primitive", "ShapedArray", "Tracer", "Var",
    "Zero", "ad", "aside", "aval_of", "batching", "begin", "bind_equation", "close",
    "compile_seconds", "constants", "context_key", "dce", "device_facts", "end_asides", "evaluate",
    "exchange", "forget_compiled", "forget_traces", "function_name", "hide_frames", "inner_jaxprs",
    "is_jitted", "is_local", "is_tracer", "is_tracing", "jit_disabled", "jvp_program", "mlir",
    "numerics", "only_transposes", "outside_trace", "part_of", "process_count", "read", "renamed",
    "same_types", "spans_devices", "spec_of", "stores_programs", "to_inputs", "trace_flat",
    "trace_jit", "under_automatic_sharding", "with_equations", "with_inner_jaxprs",
]  # fmt: skip

JAX_VERSION: tuple[int, ...] = tuple(int(part) for part in jax.__version_info__[:3])
ShapedArray = jax.core.ShapedArray
Tracer = jax.core.Tracer
Zero: Any = ad.Zero


# -- jaxprs ------------------------------------------------------------------------------------


def close(jaxpr: Any, consts: Sequence[Any] = ()) -> ClosedJaxpr:
    """The closed form of an open jaxpr; one that is closed already is returned as it is."""
    if not consts and hasattr(jaxpr, "consts"):
        return jaxpr
    return cast(Any, ClosedJaxpr)(jaxpr, list(consts))


def constants(closed: ClosedJaxpr) -> list[Any]:
    """The values that a closed jaxpr closes over, in the order of its `constvars`."""
    return list(closed.consts)


def read(env: Mapping[Var, Any], atom: Any) -> Any:
    """The value of a variable or literal."""
    return atom.val if isinstance(atom, Literal) else env[atom]


def is_tracer(value: Any) -> bool:
    """Whether a value stands for one that is not known yet."""
    return isinstance(value, Tracer)


def aval_of(value: Any) -> Any:
    """The abstract value (shape, dtype, weak type, sharding) of an array, scalar or tracer."""
    return jax.typeof(value)


def is_local(aval: Any) -> bool:
    """Whether a value is an array whose shape is known and that its type keeps on one device.

    False for references, tokens, symbolic dimensions, and explicitly sharded arrays.
    """
    if not isinstance(aval, ShapedArray) or not all(isinstance(size, int) for size in aval.shape):
        return False
    return not _partitioned(aval.sharding.mesh)


def _partitioned(mesh: Any) -> bool:
    """Whether a mesh has an axis of several devices that is not handled by hand (`shard_map`)."""
    manual = set(mesh.manual_axes)
    return any(size > 1 and name not in manual for name, size in mesh.shape.items())


def under_automatic_sharding() -> bool:
    """Whether the mesh in force lets XLA (or the types) split arrays over several devices."""
    return _partitioned(jax.sharding.get_abstract_mesh())


def part_of(
    closed: ClosedJaxpr, invars: Sequence[Var], outvars: Sequence[Var], eqns: Sequence[JaxprEqn]
) -> ClosedJaxpr:
    """Some pure equations of a closed jaxpr as a closed jaxpr without constants."""
    info = cast(Any, closed.jaxpr).debug_info.with_unknown_names()
    return close(cast(Any, Jaxpr)([], list(invars), list(outvars), list(eqns), debug_info=info))


def with_equations(
    closed: ClosedJaxpr, eqns: Sequence[JaxprEqn], outvars: Sequence[Any]
) -> ClosedJaxpr:
    """A closed jaxpr of the same inputs and constants with other equations and outputs."""
    jaxpr = cast(Any, closed.jaxpr).replace(eqns=list(eqns), outvars=list(outvars))
    return jaxpr if _one_class() else close(jaxpr, constants(closed))


def renamed(
    eqn: JaxprEqn, invars: Sequence[Any], outvars: Sequence[Var], path: Sequence[JaxprEqn]
) -> JaxprEqn:
    """An equation with other variables, moved out of the calls `path` (outermost first)."""
    inner, names = cast(Any, eqn.source_info), None
    for call in path:
        stack = cast(Any, call.source_info).name_stack
        stack = stack.extend(f"jit({call.params['name']})")
        names = stack if names is None else names + stack
    names = inner.name_stack if names is None else names + inner.name_stack
    info = inner.replace(name_stack=names)
    return cast(Any, eqn).replace(invars=list(invars), outvars=list(outvars), source_info=info)


# -- tracing -----------------------------------------------------------------------------------


def function_name(fun: Callable[..., Any]) -> str:
    """The name that jax gives to a function."""
    return _fun_name(fun)


def is_tracing() -> bool:
    """Whether a function is being traced: whether operations are recorded instead of run."""
    return not _core.trace_state_clean()


def is_jitted(fun: Any) -> bool:
    """Whether a function is the result of `jax.jit`."""
    return isinstance(fun, type(jax.jit(abs)))


def spec_of(value: Any) -> Any:
    """The type of an array or tracer, as `jax.jit(f).lower` takes it."""
    aval = aval_of(value)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def forget_traces(jitted: Any) -> bool:
    """Have a jitted function traced anew by whoever lowers it next, while calls go on being
    answered by what is compiled; False where this jax does not tell the two apart.
    """
    try:
        cast(Any, _pe).trace_to_jaxpr.evict_weakref(jitted._fun)
        _pjit._infer_params_cached.cache_clear()
        return hasattr(jitted, "_clear_cache")
    except AttributeError:
        return False


def call_under_way() -> Callable[[], bool]:
    """Whether the call of a jitted function for which a function is being traced now still goes on,
    compiling or running, as a question that any thread may ask.
    """
    folder = os.path.dirname(os.path.abspath(jax.__file__)) + os.sep
    thread, frame = threading.get_ident(), sys._getframe()
    # The frame itself, not its id: another frame would soon be given the same.
    outermost: list[types.FrameType] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(folder):
            outermost = [frame]
        elif outermost:
            break
        frame = frame.f_back

    def under_way() -> bool:
        frame = sys._current_frames().get(thread)
        while frame is not None and outermost:
            if frame is outermost[0]:
                return True
            frame = frame.f_back
        outermost.clear()
        return False

    return under_way


def forget_compiled(jitted: Any) -> None:
    """Have the next call of a jitted function look for what is compiled anew."""
    if hasattr(jitted, "_clear_cache"):
        jitted._clear_cache()
    else:
        jitted.clear_cache()


def trace_flat(fun: Callable[..., Any], avals: Sequence[Any]) -> ClosedJaxpr:
    """The jaxpr of a function of arrays that returns a list of arrays."""
    return jax.make_jaxpr(fun)(*avals)


def trace_jit(
    fun: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], **keywords: Any
) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr that `jax.jit(fun, **keywords)` makes of a call, and its output tree.

    Errors are jax.jit's own. Tracers that `fun` closes over are constants of the jaxpr.
    """
    traced: Any = jax.jit(fun, **keywords).trace(*args, **kwargs)
    closed, hoisted = traced.jaxpr, list(traced._consts)
    if hoisted:  # jit turns closed-over tracers into leading arguments: turn them back
        jaxpr = closed.jaxpr
        invars = list(jaxpr.invars)
        count = len(hoisted)
        constvars, consts = [*invars[:count], *jaxpr.constvars], [*hoisted, *closed.consts]
        if _one_class():
            closed = closed.with_consts(hoisted)
        else:
            closed = close(jaxpr.replace(constvars=constvars, invars=invars[count:]), consts)
    return closed, traced.out_tree


@functools.cache
def _one_class() -> bool:
    return ClosedJaxpr is Jaxpr


def to_inputs(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, list[Any]]:
    """The same program with its constants as leading inputs, and those constants."""
    consts = constants(closed)
    if not consts:
        return closed, []
    avals = [aval_of(const) for const in consts] + list(closed.in_avals)
    count = len(consts)

    def fun(*args: Any) -> list[Any]:
        return evaluate_open(closed.jaxpr, args[:count], args[count:])

    return trace_flat(fun, avals), consts


def dce(closed: ClosedJaxpr) -> tuple[ClosedJaxpr, list[bool]]:
    """A closed jaxpr without its dead equations and inputs, and which inputs it kept."""
    assert not constants(closed)
    jaxpr, used = pe.dce_jaxpr(cast(Any, closed.jaxpr), [True] * len(closed.out_avals))
    return close(jaxpr), list(used)


def jvp_program(closed: ClosedJaxpr, nonzero: Sequence[bool]) -> tuple[ClosedJaxpr, list[bool]]:
    """The program (inputs, tangents of the nonzero ones) -> (outputs, nonzero output tangents).

    Also returns which outputs have a tangent. `custom_jvp` and `custom_vjp` rules are in force.
    """
    program, out_nonzero = _ad.jvp_jaxpr(cast(Any, closed), list(nonzero), False)
    return cast(ClosedJaxpr, program), list(out_nonzero)


def only_transposes(closed: ClosedJaxpr) -> bool:
    """Whether a tangent program has a `custom_vjp` inside: reverse mode alone may use it."""
    return any(
        eqn.primitive.name == "custom_lin"
        or any(only_transposes(cast(Any, inner)) for inner in jaxprs_in_params(eqn.params))
        for eqn in closed.eqns
    )


def context_key() -> Any:
    """What jax's own caches add to a key: precision, x64, mesh, and the like."""
    return _config.trace_context()


def numerics() -> dict[str, Any]:
    """jax's settings that decide which numbers a program computes, by name."""
    settings: Any = jax.config
    return {name: getattr(settings, name) for name in _NUMERICS}


def stores_programs() -> bool:
    """Whether jax's persistent cache stores what it compiles."""
    settings: Any = jax.config
    return bool(settings.jax_enable_compilation_cache and settings.jax_compilation_cache_dir)


def device_facts() -> dict[str, Any]:
    """What jax and the system say about the device in use: JSON types. Initialises the backend."""
    device: Any = jax.local_devices()[0]
    facts = {"platform": device.platform, "kind": device.device_kind}
    if device.platform == "cpu":
        return facts
    for name in ("compute_capability", "core_count"):
        value = getattr(device, name, None)
        facts[name] = value if isinstance(value, int | str) else None
    facts["runtime"] = str(device.client.platform_version)
    facts["stores_programs"] = stores_programs()  # then kernels are handed over as text
    with contextlib.suppress(OSError), open("/sys/module/nvidia/version") as file:
        facts["driver"] = file.read().strip()
    return facts


def process_count() -> int:
    """How many jax processes this job has; 1 where jax has not started a backend."""
    return jax.process_count()


_exchanges = itertools.count()


def exchange(about: str, text: str, seconds: float) -> list[str]:
    """Every process's text, through the coordination service of `jax.distributed`; waits for them.

    All processes must call it equally often, in the same order.

    Raises:
      Exception: the service's own, where another process is not heard in time.
    """
    state: Any = _distributed.global_state
    if state.client is None:
        return [text]
    room = f"{about}/{next(_exchanges)}"
    state.client.key_value_set(f"{room}/{state.process_id}", text)
    return [
        state.client.blocking_key_value_get(f"{room}/{process}", int(seconds * 1000))
        for process in range(state.num_processes)
    ]


_NUMERICS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_numpy_dtype_promotion")


@contextlib.contextmanager
def outside_trace() -> Generator[None]:
    """Operations inside run at once instead of being recorded in the function being traced."""
    with jax.core.eval_context():
        yield


_asides: dict[threading.Thread, Future[Any]] = {}
_ending = threading.Event()


def aside(fun: Callable[[], Any], seconds: float | None = None) -> Any:
    """The result of `fun`, run as `begin` does.

    Args:
      fun: what to run.
      seconds: how long it is waited for; the thread then goes on alone. None: without end.

    Raises:
      TimeoutError: it did not end in time, or the process is ending.
      Exception: whatever `fun` raises.
    """
    done = begin(fun)
    wait([done], seconds)
    if not done.done():
        raise TimeoutError
    return done.result()


def begin(fun: Callable[[], Any]) -> Future[Any]:
    """Runs `fun` in a thread where nothing is being traced and no mesh is in force.

    The caller's context variables and its choice of 64-bit types hold there too.

    Raises:
      TimeoutError: the process is ending.
    """
    wide, context = jax.config.read("jax_enable_x64"), contextvars.copy_context()
    done: Future[Any] = Future()

    def run() -> None:
        try:
            with jax.enable_x64(wide):
                answer = functools.partial(done.set_result, context.run(fun))
        except BaseException as error:
            answer = functools.partial(done.set_exception, error)
        with contextlib.suppress(InvalidStateError):  # the process is ending
            answer()
        _asides.pop(threading.current_thread(), None)

    # A daemon: an interrupted caller does not wait for it, and the end of the process only so long.
    thread = threading.Thread(target=run, name="prism_jax", daemon=True)
    _asides[thread] = done
    if _ending.is_set():
        _asides.pop(thread)
        raise TimeoutError
    thread.start()
    return done


def end_asides() -> list[threading.Thread]:
    """For the end of the process: nothing more is begun aside, and nobody waits any longer.

    Returns:
      The threads that still run. Python 3.11 to 3.13 abort where XLA's compiler comes back to an
      interpreter that has ended, so the end of the process should wait for them a while.
    """
    _ending.set()
    running = dict(_asides)
    for done in running.values():
        with contextlib.suppress(InvalidStateError):
            done.set_exception(TimeoutError())
    return [thread for thread in running if thread.is_alive()]


_compiled: dict[int, float] = {}
_COMPILING = ("backend_compile_duration", "jaxpr_to_mlir_module_duration")
_watching = threading.Lock()  # taken for good by whoever registers the listener


def _heard(event: str, duration_secs: float, **_: Any) -> None:
    if event.endswith(_COMPILING):
        thread = threading.get_ident()
        _compiled[thread] = _compiled.get(thread, 0.0) + duration_secs


def compile_seconds(only_here: bool = False) -> float:
    """Seconds that jax has spent lowering and XLA compiling, since this was first asked.

    Args:
      only_here: in this thread; otherwise in all threads of the process.
    """
    if _watching.acquire(blocking=False):
        jax.monitoring.register_event_duration_secs_listener(_heard)
    if only_here:
        return _compiled.get(threading.get_ident(), 0.0)
    return sum(_compiled.copy().values())


def hide_frames(path: str) -> None:
    """Leave a file of ours out of the tracebacks of the user's errors, as jax does with its own."""
    _tracebacks.register_exclusion(path)
    _source_info.register_exclusion(path)


# -- evaluating --------------------------------------------------------------------------------


def bind_equation(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """The outputs of one equation, exactly as jax evaluates it."""
    params = cast(Any, eqn.primitive).get_bind_params(eqn.params)
    info = cast(Any, eqn.source_info)
    names = _source_info.current_name_stack() + info.name_stack
    with (
        _source_info.user_context(info.traceback, name_stack=names),
        cast(Any, eqn.ctx).manager,
    ):
        out = eqn.primitive.bind(*values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def evaluate_open(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The outputs of an open jaxpr."""
    return jax.core.eval_jaxpr(jaxpr, list(consts), *args)


def evaluate(closed: ClosedJaxpr, *args: Any) -> list[Any]:
    """The outputs of a closed jaxpr, equation by equation."""
    with jax.debug_nans(False):  # jnp.var and others make NaNs on purpose (see jax's jaxpr_as_fun)
        return evaluate_open(closed.jaxpr, constants(closed), args)


#: Parameters that hold the programs which an equation runs, and whose values it does not depend on
#: in any other way. `custom_jvp_call` and `custom_vjp_call` are left out: their rules must stay.
_INNER: dict[str, tuple[str, ...]] = {
    "scan": ("jaxpr",),
    "while": ("body_jaxpr",),
    "cond": ("branches",),
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "remat2": ("jaxpr",),
    "checkpoint": ("jaxpr",),
}


def inner_jaxprs(eqn: JaxprEqn) -> dict[tuple[str, int], ClosedJaxpr]:
    """The programs inside an equation that may be replaced by equivalent ones, by place.

    >>> import jax
    >>> closed = jax.make_jaxpr(lambda x: jax.lax.cond(x > 0, lambda: x, lambda: -x))(1.0)
    >>> sorted(inner_jaxprs(closed.eqns[-1]))
    [('branches', 0), ('branches', 1)]
    """
    if eqn.primitive.name in ("jit", "pjit") and not _unsharded(eqn.params):
        return {}
    found: dict[tuple[str, int], ClosedJaxpr] = {}
    for name in _INNER.get(eqn.primitive.name, ()):
        value = eqn.params[name]
        for place, jaxpr in enumerate(value if isinstance(value, tuple | list) else (value,)):
            found[name, place] = close(jaxpr)
    return found


def _unsharded(params: Mapping[str, Any]) -> bool:
    given = (*params["in_shardings"], *params["out_shardings"])
    return all(type(sharding).__name__ == "UnspecifiedValue" for sharding in given)


def same_types(new: ClosedJaxpr, old: ClosedJaxpr) -> bool:
    """Whether one program may stand in the other's place inside an equation."""
    return (
        list(new.out_avals) == list(old.out_avals)
        and new.effects == old.effects
        and bool(constants(new)) <= bool(constants(old))
    )


def with_inner_jaxprs(eqn: JaxprEqn, replaced: Mapping[tuple[str, int], ClosedJaxpr]) -> JaxprEqn:
    """The equation with some of its `inner_jaxprs` replaced; shapes and types must be the same."""
    params = dict(eqn.params)
    for (name, place), closed in sorted(replaced.items(), key=lambda item: item[0]):
        value = params[name]
        if isinstance(value, tuple | list):
            params[name] = (*value[:place], closed, *value[place + 1 :])
        else:
            params[name] = closed if isinstance(value, ClosedJaxpr) else closed.jaxpr
    return cast(Any, eqn).replace(params=params)


# -- lowering ----------------------------------------------------------------------------------


def spans_devices(ctx: Any) -> bool:
    """Whether the program being lowered is to be split by XLA over several devices.

    False under `shard_map` over every axis of its mesh, where the program is one device's.
    """
    axes = ctx.module_context.axis_context
    if isinstance(axes, ShardingContext):
        return axes.num_devices > 1
    if isinstance(axes, SPMDAxisContext):
        return any(
            size > 1 and name not in axes.manual_axes for name, size in axes.mesh.shape.items()
        )
    return False


def jit_disabled() -> bool:
    """Whether `jax.disable_jit` is in force."""
    settings: Any = jax.config
    return bool(settings.jax_disable_jit)
