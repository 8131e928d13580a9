"""Settings: one frozen dataclass, scoped by a context manager, read from the environment once.

In: keywords, and `PRISM_JAX*` environment variables at import. Out: a validated `Options`.
Invariant: `Options` are values (hashable, comparable), so what was decided under one setting is
never reused under another; no other file of ours reads the environment for a setting.

>>> Options(accuracy=1.5).accuracy
1.5
>>> with options(on_error="raise"):
...     current().on_error
'raise'
>>> current().on_error
'warn'
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from typing import Any, Literal

import jax

from prism_jax import errors

PREFIX = "PRISM_JAX"


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a value may be. `read` turns an environment text into a value, `check` normalises one.

    Both raise ValueError outside the domain; `expected` ends the sentence "must be ...".
    """

    expected: str
    read: Callable[[str], Any]
    check: Callable[[Any], Any]


def _number(expected: str, fits: Callable[[float], bool]) -> _Rule:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(value)
        if not fits(float(value)):
            raise ValueError(value)
        return float(value)

    return _Rule(expected, float, check)


def _choice(*values: str | None) -> _Rule:
    names = [repr(value) for value in values]
    expected = f"{', '.join(names[:-1])} or {names[-1]}"

    def check(value: Any) -> Any:
        if not isinstance(value, str | None) or value not in values:
            raise ValueError(value)
        return value

    return _Rule(expected, lambda text: None if text == "" and None in values else text, check)


_ON_OFF = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}


def _read_bool(text: str) -> bool:
    if text.strip().lower() not in _ON_OFF:
        raise ValueError(text)
    return _ON_OFF[text.strip().lower()]


def _check_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _check_text(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str | os.PathLike) and os.fspath(value)):
        raise ValueError(value)
    return None if value is None else os.fspath(value)


_SWITCH = _Rule("'on' or 'off' (in Python: True or False)", _read_bool, _check_bool)
_TEXT = _Rule("a non-empty text or None", lambda text: text or None, _check_text)
_SECONDS = _number("a number of seconds, zero or more", lambda x: math.isfinite(x) and x >= 0)
_SIZE = _number("a number of megabytes, above zero", lambda x: math.isfinite(x) and x > 0)
_ACCURACY = _number("a finite number of at least 1", lambda x: math.isfinite(x) and x >= 1)
_FRACTION = _number("a number from 0 to 1", lambda x: 0 <= x <= 1)

_environment: dict[str, Any] = {}


def _field(name: str, default: Any, rule: _Rule, text: str, in_cache_key: bool) -> Any:
    """A field whose default is the environment's value, where there is one."""
    variable = PREFIX if name == "enabled" else f"{PREFIX}_{name.upper()}"
    return dataclasses.field(
        default_factory=lambda: _environment.get(name, default),
        metadata={
            "environment": variable,
            "default": default,
            "help": text,
            "in_cache_key": in_cache_key,
            "rule": rule,
        },
    )


@dataclasses.dataclass(frozen=True, kw_only=True, init=False)
class Options:
    """Settings of `prism.jit`. Every field's environment variable is its name in capitals after
    `PRISM_JAX_`, save `enabled`, which is `PRISM_JAX` itself. An explicit value wins over the
    environment, save that `PRISM_JAX=off` always disables everything.

    Raises:
      UnknownOptionError: a keyword that is no field.
      BadOptionValueError: a value outside the field's domain.
    """

    enabled: bool = _field(
        "enabled", True, _SWITCH, "off: prism.jit is jax.jit, nothing is rewritten", False
    )
    on_error: Literal["warn", "raise"] = _field(
        "on_error", "warn", _choice("warn", "raise"),
        "what a failure of prism_jax does: warn once and run as jax.jit would, or raise", False,
    )  # fmt: skip
    accuracy: float = _field(
        "accuracy", 2.0, _ACCURACY,
        "how many times the error of jax.jit (against float64) a plan may have", True,
    )  # fmt: skip
    search_seconds: float = _field(
        "search_seconds", 2.0, _SECONDS, "longest search for one region, in seconds", True
    )
    tune: Literal["auto", "off", "background", "never"] = _field(
        "tune", "auto", _choice("auto", "off", "background", "never"),
        "auto: measure candidates on the device; off: rank by closed form only (deterministic); "
        "background: measure beside the first calls, which XLA answers; "
        "never: only plans that the cache holds",
        True,
    )  # fmt: skip
    tune_seconds: float = _field(
        "tune_seconds", 20.0, _SECONDS, "longest measurement for one region, in seconds", True
    )
    min_gain: float = _field(
        "min_gain", 0.03, _FRACTION,
        "a plan must beat XLA's own version by this fraction of its time", True,
    )  # fmt: skip
    shadow: float = _field(
        "shadow", 0.0, _FRACTION,
        "fraction of calls that also run jax.jit's version and compare the results", False,
    )  # fmt: skip
    device: str | None = _field(
        "device", None, _TEXT,
        "row of the device table to plan for (such as H100); None: the device jax uses", True,
    )  # fmt: skip
    backend: Literal["triton", "lax", "jnp"] | None = _field(
        "backend", None, _choice("triton", "lax", "jnp", None),
        "only plans of this back end; None: whichever is fastest", True,
    )  # fmt: skip
    cache: Literal["on", "read", "off"] = _field(
        "cache", "on", _choice("on", "read", "off"),
        "on: plans are kept for later processes; read: kept ones are used, none is added; off: "
        "neither", False,
    )  # fmt: skip
    cache_dir: str | None = _field(
        "cache_dir", None, _TEXT,
        "folder of the plans found earlier; None: prism_jax in the user's cache folder", False,
    )  # fmt: skip
    cache_megabytes: float = _field(
        "cache_megabytes", 1024.0, _SIZE,
        "size of that folder beyond which the plans used longest ago are deleted", False,
    )  # fmt: skip
    trust_cache: Literal["on", "signed", "off"] = _field(
        "trust_cache", "on", _choice("on", "signed", "off"),
        "on: kernels from the cache run if their checksums hold; signed: only entries that were "
        "signed with cache_key; off: plans are proved, tested and compiled again", False,
    )  # fmt: skip
    cache_key: str | None = _field(
        "cache_key", None, _TEXT,
        "file that holds the key with which entries are signed, or env:NAME, the variable that "
        "does", False,
    )  # fmt: skip
    progress: Literal["auto", "off"] = _field(
        "progress", "auto", _choice("auto", "off"),
        "auto: long work shows a line on a terminal or in a notebook; off: nowhere", False,
    )  # fmt: skip

    def __init__(self, **values: Any) -> None:
        for name in values:
            if name not in FIELDS:
                raise errors.UnknownOptionError(name=name, known=tuple(FIELDS))
        for name, field in FIELDS.items():
            value = values[name] if name in values else _factory(field)()
            object.__setattr__(self, name, _checked(f"Option {name}", field, value))
        if _environment.get("enabled") is False:
            object.__setattr__(self, "enabled", False)

    def key(self) -> tuple[tuple[str, Any], ...]:
        """The settings on which a plan depends, sorted by name: part of every cache key."""
        return tuple(
            (name, getattr(self, name))
            for name, field in sorted(FIELDS.items())
            if field.metadata["in_cache_key"]
        )

    def replace(self, **changes: Any) -> Options:
        """These settings with some of them changed."""
        return Options(**{**{name: getattr(self, name) for name in FIELDS}, **changes})


FIELDS: dict[str, dataclasses.Field[Any]] = {
    field.name: field for field in dataclasses.fields(Options)
}


def _factory(field: dataclasses.Field[Any]) -> Callable[[], Any]:
    factory = field.default_factory
    assert callable(factory)  # every field was made by `_field`
    return factory


def _checked(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    rule: _Rule = field.metadata["rule"]
    try:
        return rule.check(value)
    except ValueError:
        raise errors.BadOptionValueError(name=name, expected=rule.expected, value=value) from None


def read_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """The options that these environment variables set.

    Raises:
      BadOptionValueError: a variable with a value outside its option's domain.

    >>> read_environment({"PRISM_JAX": "off", "PRISM_JAX_ACCURACY": "1.25"})
    {'enabled': False, 'accuracy': 1.25}
    """
    by_variable = {field.metadata["environment"]: field for field in FIELDS.values()}
    found: dict[str, Any] = {}
    for variable, field in by_variable.items():
        if variable not in variables:
            continue
        text, rule = variables[variable], field.metadata["rule"]
        try:
            found[field.name] = rule.check(rule.read(text))
        except ValueError:
            name = f"Environment variable {variable}"
            raise errors.BadOptionValueError(
                name=name, expected=rule.expected, value=text
            ) from None
    for variable in sorted(variables):
        if variable.startswith(f"{PREFIX}_") and variable not in by_variable:
            warning = errors.UnknownVariable(name=variable, known=tuple(by_variable))
            errors.warn(warning, ("options", variable, ""))
    return found


_environment.update(read_environment(os.environ))

#: Variables that change what XLA, Triton or ptxas make of a program, by name or by how it begins.
_COMPILERS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "PTXAS_OPTIONS", "TRITON_")
#: Those of them that only say where something lies or how much is shown.
_HARMLESS = ("_DIR", "_HOME", "_PATH", "_DUMP", "_DEBUG", "_PRINT_AUTOTUNING", "_LOG")


def compiler_environment() -> dict[str, str]:
    """The variables in force that decide what compilers make: part of every key of the cache."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_COMPILERS) and not name.endswith(_HARMLESS) and value
    }
    flags = [f for f in found.get("XLA_FLAGS", "").split() if not f.startswith("--xla_dump")]
    found.pop("XLA_FLAGS", None)
    return found | ({"XLA_FLAGS": " ".join(sorted(flags))} if flags else {})


def variable(name: str) -> str | None:
    """The value of a variable that a setting named (`cache_key="env:NAME"`)."""
    return os.environ.get(name)


def cache_folder(settings: Options) -> str | None:
    """The folder of the cache; None where the user has no cache folder and named none."""
    if settings.cache_dir is not None:
        return settings.cache_dir
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "prism_jax") if os.path.isabs(base) else None


_scope: ContextVar[Options | None] = ContextVar("prism_jax_options", default=None)
# jax's own caches have to see the scoped options too: a function that was compiled under others is
# traced again. Two jax.jit caches never mix because the value is part of their key.
_jax_scope: Any = jax.make_user_context(default_value=None)


def current() -> Options:
    """The settings in force: the innermost `options` block's, else the environment's."""
    return _scope.get() or Options()


@contextlib.contextmanager
def options(base: Options | None = None, /, **changes: Any) -> Generator[Options]:
    """Settings for everything traced inside a `with` block (or a decorated function).

    Args:
      base: settings to start from; None: those in force.
      **changes: fields of `Options`.

    A function that was compiled under other settings is traced anew inside the block.
    """
    value = expect(base, current()).replace(**changes)
    token = _scope.set(value)
    try:
        with _jax_scope(value):
            yield value
    finally:
        _scope.reset(token)


@contextlib.contextmanager
def untraced() -> Generator[None]:
    """Whatever jax traced before is traced anew inside the block (to listen to all of it)."""
    with _jax_scope((current(), object())):
        yield


def scope_of() -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """What makes another thread see the settings in force here, as jax's caches see them too."""
    value = _scope.get()
    return contextlib.nullcontext if value is None else lambda: options(value)


def expect(value: Options | None, otherwise: Options) -> Options:
    """`value` if it is an `Options`, `otherwise` if it is None.

    Raises:
      OptionsTypeError: it is something else.
    """
    if value is None:
        return otherwise
    if not isinstance(value, Options):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise errors.OptionsTypeError(value=value, kind=type(value).__name__)
    return value


def table() -> str:
    """Every option, its environment variable, default and help, one per line (for `doctor`)."""
    rows = [
        f"{field.metadata['environment']:<28}{field.metadata['default']!r:<8}"
        f"{field.metadata['help']}"
        for field in FIELDS.values()
    ]
    return "\n".join(rows)
