"""Every sentence that prism_jax says to its user, one class each, and the one way to fall back.

In: what went wrong, as named fields. Out: an exception or a warning whose text says what happened,
where, and what to do about it. Errors of the user's own program never pass through here: they are
jax's own. Invariant: a failure of ours is said once per place, and the program goes on as under
`jax.jit` unless the user asked for `on_error="raise"`.

>>> print(UnknownOptionError(name="acuracy", known=("accuracy", "backend")))
prism.Options has no option 'acuracy'; did you mean 'accuracy'? The options are accuracy, backend.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
import threading
import warnings
from typing import Any, ClassVar


class _Sentence(BaseException):
    """A template and the fields that fill it; equal fields make equal texts."""

    template: ClassVar[str]

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    def __reduce__(self) -> tuple[Any, ...]:  # exceptions cross process borders by pickle
        return _rebuild, (type(self), self.fields)


def _rebuild(kind: type[_Sentence], fields: dict[str, Any]) -> _Sentence:
    return kind(**fields)


class PrismError(_Sentence, Exception):
    """Base class of the errors that prism_jax raises."""

    template = "{text}"


class PrismWarning(_Sentence, UserWarning):
    """Base class of the warnings that prism_jax gives."""

    template = "{text}"


# -- settings ----------------------------------------------------------------------------------


def _did_you_mean(name: str, known: tuple[str, ...]) -> str:
    # A prefix that all names share makes no two of them alike.
    shared = next((n for n, c in enumerate(zip(name, *known, strict=False)) if len(set(c)) > 1), 0)
    endings = {one[shared:]: one for one in known}
    close = difflib.get_close_matches(name[shared:], endings, n=1)
    return f"; did you mean {endings[close[0]]!r}?" if close else "."


class UnknownOptionError(PrismError, TypeError):
    """A keyword that is no option."""

    template = "prism.Options has no option {name!r}{hint} The options are {listed}."

    def __init__(self, *, name: str, known: tuple[str, ...], **_: Any) -> None:
        hint, listed = _did_you_mean(name, known), ", ".join(known)
        super().__init__(name=name, known=known, hint=hint, listed=listed)


class BadOptionValueError(PrismError, ValueError):
    """An option (or the variable that sets it) with a value outside its domain."""

    template = "{name} must be {expected}, not {value!r}."


class OptionsTypeError(PrismError, TypeError):
    """Something else than an `Options` was given as `options=`."""

    template = (
        "options= takes a prism.Options, such as prism.jit(f, options=prism.Options(accuracy=1.5))"
        "; it was given {value!r} of type {kind}."
    )


class UnknownVariable(PrismWarning):
    """An environment variable with our prefix that names no setting."""

    template = "Environment variable {name} is not a setting of prism_jax{hint} It is ignored."

    def __init__(self, *, name: str, known: tuple[str, ...], **_: Any) -> None:
        super().__init__(name=name, known=known, hint=_did_you_mean(name, known))


# -- a stage of ours failed --------------------------------------------------------------------


class Fallback(PrismWarning):
    """A stage failed; the region runs as under `jax.jit`."""

    template = (
        "prism_jax left {where} to XLA, because its {stage} stage failed: {cause}. "
        "Results are those of jax.jit. Use prism.options(on_error='raise') to see the traceback, "
        "or PRISM_JAX=off to switch prism_jax off."
    )


class StageError(PrismError, RuntimeError):
    """A stage failed and `on_error="raise"` was asked for; the cause is chained."""

    template = (
        "prism_jax could not optimise {where}: its {stage} stage failed: {cause}. "
        "With on_error='warn' (the default) the program runs as under jax.jit instead."
    )


class PlanMismatchError(PrismError, TypeError):
    """A plan computes something of another shape or dtype than the region it replaces."""

    template = (
        "the plan of {where} returns {got} where the program returns {want}; "
        "this is a defect of prism_jax, not of your program"
    )


class OpenRegionError(PrismError, TypeError):
    """A region has effects or closes over values, so it cannot be a parameter of a primitive."""

    template = (
        "{where} has {count} effect(s) or value(s) being traced inside; all that a region uses has "
        "to be one of its inputs. This is a defect of prism_jax, not of your program"
    )


# -- the cache ---------------------------------------------------------------------------------


class PlanMissing(PrismWarning):
    """`tune="never"`, and the cache has no plan for a region."""

    template = (
        "The cache has no plan for {where} (program {program}) on {device}, and tune='never' makes "
        "none: it runs as under jax.jit. Run it once with tune='auto' on such a device, then "
        "`python -m prism_jax cache export FILE` there and `cache load FILE` here."
    )


class SecretMissing(PrismWarning):
    """`trust_cache="signed"` without a key to check signatures with."""

    template = (
        "trust_cache='signed' needs a key: {problem}. Until then the cache is not used. Set "
        "cache_key to a file of random bytes, or to env:NAME for a variable that holds them."
    )


class FleetError(PrismError, RuntimeError):
    """The processes of a job could not compare their caches."""

    template = (
        "prism.cache.agree() did not hear all processes of this job: {cause}. Every process has to "
        "call it once, after jax.distributed.initialize()."
    )


class CacheFileError(PrismError, ValueError):
    """A file that is to be loaded into the cache, or written from it, cannot be."""

    template = "{path} {problem}."


# -- diagnosis ---------------------------------------------------------------------------------


class ShadowMismatch(PrismWarning):
    """A shadow run found outputs further from `jax.jit`'s than rounding explains."""

    template = (
        "Shadow run of {where}: output {output} differs from jax.jit's by {error:.3g} of its "
        "largest value, {limit:.3g} was expected. prism.bisect(f, *args) finds the region; "
        "PRISM_JAX=off switches prism_jax off."
    )


class NotAFunctionError(PrismError, TypeError):
    """`explain` or `bisect` was given something that is no function."""

    template = "prism.{function} takes a function and its arguments; it was given {value!r}."


# -- falling back ------------------------------------------------------------------------------

_said: set[tuple[str, str, str]] = set()
_lock = threading.Lock()


def cause_of(error: BaseException) -> str:
    r"""The error's type and first line, for the end of a sentence.

    >>> cause_of(ValueError("no such axis\nand much more"))
    'ValueError: no such axis'
    """
    first = (str(error).strip().splitlines() or [""])[0].rstrip(". ")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def fallback(stage: str, where: str, error: BaseException, on_error: str = "warn") -> None:
    """Say once that a stage failed at a place, so that the caller can go on with the original.

    Args:
      stage: name of the stage: trace, extract, explore, verify, instantiate, emit or launch.
      where: the user's function and the region or equation in it.
      error: what was raised.
      on_error: "warn" warns, once per (stage, place, cause); "raise" raises.

    Raises:
      StageError: if `on_error` is "raise", with `error` as its cause.
    """
    cause = cause_of(error)
    if on_error == "raise":
        raise StageError(stage=stage, where=where, cause=cause) from error
    warn(Fallback(stage=stage, where=where, cause=cause), (stage, where, cause))


def warn(warning: PrismWarning, place: tuple[str, str, str]) -> None:
    """Give a warning, attributed to the user's own line, unless this place has given it already."""
    with _lock:
        if place in _said:
            return
        _said.add(place)
    warnings.warn(warning, stacklevel=_user_level())


def note(text: str, error: BaseException | None = None) -> None:
    """Say something in the log that is nobody's mistake; `error`'s traceback only to who debugs."""
    logger = logging.getLogger("prism_jax")
    logger.warning("%s", text, exc_info=error if logger.isEnabledFor(logging.DEBUG) else None)


def forget() -> None:
    """Let every place warn again (for tests and notebooks)."""
    with _lock:
        _said.clear()


def _user_level() -> int:
    """The `stacklevel`, seen from `warn`, of the first frame outside prism_jax and jax."""
    ours = (os.path.dirname(os.path.abspath(__file__)) + os.sep,)
    jax = sys.modules.get("jax")
    if jax is not None and jax.__file__:
        ours += (os.path.dirname(os.path.abspath(jax.__file__)) + os.sep,)
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(ours):
        frame, level = frame.f_back, level + 1
    return level
