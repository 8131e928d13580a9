"""Sentences: each one filled in, each one readable; falling back."""

from __future__ import annotations

import inspect
import pickle
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import prism_jax as prism
from prism_jax import errors, pipeline
from tests.stub_stages import STUB, stub_extract

EXAMPLES: dict[type[Any], tuple[dict[str, Any], str]] = {
    errors.PrismError: ({"text": "text"}, "text"),
    errors.PrismWarning: ({"text": "text"}, "text"),
    errors.UnknownOptionError: (
        {"name": "tun", "known": ("tune", "device")},
        "prism.Options has no option 'tun'; did you mean 'tune'? The options are tune, device.",
    ),
    errors.BadOptionValueError: (
        {"name": "Option tune", "expected": "'auto' or 'off'", "value": 3},
        "Option tune must be 'auto' or 'off', not 3.",
    ),
    errors.OptionsTypeError: (
        {"value": {}, "kind": "dict"},
        "options= takes a prism.Options, such as prism.jit(f, options=prism.Options(accuracy=1.5))"
        "; it was given {} of type dict.",
    ),
    errors.UnknownVariable: (
        {"name": "PRISM_JAX_X", "known": ("PRISM_JAX_TUNE", "PRISM_JAX_DEVICE")},
        "Environment variable PRISM_JAX_X is not a setting of prism_jax. It is ignored.",
    ),
    errors.Fallback: (
        {"where": "f_0", "stage": "emit", "cause": "KeyError: 'k'"},
        "prism_jax left f_0 to XLA, because its emit stage failed: KeyError: 'k'. Results are "
        "those of jax.jit. Use prism.options(on_error='raise') to see the traceback, or "
        "PRISM_JAX=off to switch prism_jax off.",
    ),
    errors.StageError: (
        {"where": "f_0", "stage": "emit", "cause": "KeyError: 'k'"},
        "prism_jax could not optimise f_0: its emit stage failed: KeyError: 'k'. With "
        "on_error='warn' (the default) the program runs as under jax.jit instead.",
    ),
    errors.PlanMismatchError: (
        {"where": "f_0", "got": "float32[3]", "want": "float32[4]"},
        "the plan of f_0 returns float32[3] where the program returns float32[4]; this is a defect "
        "of prism_jax, not of your program",
    ),
    errors.OpenRegionError: (
        {"where": "f_0", "count": 2},
        "f_0 has 2 effect(s) or value(s) being traced inside; all that a region uses has to be one "
        "of its inputs. This is a defect of prism_jax, not of your program",
    ),
    errors.PlanMissing: (
        {"where": "f_0", "program": "8ae0a2eddf55", "device": "H100"},
        "The cache has no plan for f_0 (program 8ae0a2eddf55) on H100, and tune='never' makes none:"
        " it runs as under jax.jit. Run it once with tune='auto' on such a device, then `python -m "
        "prism_jax cache export FILE` there and `cache load FILE` here.",
    ),
    errors.SecretMissing: (
        {"problem": "cache_key is not set"},
        "trust_cache='signed' needs a key: cache_key is not set. Until then the cache is not used. "
        "Set cache_key to a file of random bytes, or to env:NAME for a variable that holds them.",
    ),
    errors.FleetError: (
        {"cause": "TimeoutError: 300 s"},
        "prism.cache.agree() did not hear all processes of this job: TimeoutError: 300 s. Every "
        "process has to call it once, after jax.distributed.initialize().",
    ),
    errors.CacheFileError: (
        {"path": "plans.zip", "problem": "is no exported cache"},
        "plans.zip is no exported cache.",
    ),
    errors.ShadowMismatch: (
        {"where": "f", "output": 1, "error": 0.25, "limit": 0.001},
        "Shadow run of f: output 1 differs from jax.jit's by 0.25 of its largest value, 0.001 was "
        "expected. prism.bisect(f, *args) finds the region; PRISM_JAX=off switches prism_jax off.",
    ),
    errors.NotAFunctionError: (
        {"function": "explain", "value": 3},
        "prism.explain takes a function and its arguments; it was given 3.",
    ),
}


def _sentences() -> list[type[Any]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return [c for _, c in found if issubclass(c, errors.PrismError | errors.PrismWarning)]


@pytest.mark.parametrize("kind", _sentences(), ids=lambda c: c.__name__)
def test_each_sentence(kind: type[Any]) -> None:
    fields, text = EXAMPLES[kind]
    made = kind(**fields)
    assert str(made) == text
    copy = pickle.loads(pickle.dumps(made))  # errors cross process borders
    assert (type(copy), str(copy)) == (kind, text)


@pytest.fixture(autouse=True)
def _quiet_start() -> None:
    errors.forget()
    pipeline.forget()


def test_fallback_warns_once_per_place_and_cause() -> None:
    def fall(where: str, cause: str) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            errors.fallback("emit", where, ValueError(cause))
        return len(caught)

    assert [fall("f", "a"), fall("f", "a"), fall("g", "a"), fall("f", "b")] == [1, 0, 1, 1]


def test_fallback_raises_with_the_cause_if_asked() -> None:
    cause = ValueError("no such tile\nand more")
    with pytest.raises(errors.StageError, match=r"ValueError: no such tile\. With") as caught:
        errors.fallback("emit", "f", cause, "raise")
    assert caught.value.__cause__ is cause


def _broken(*_: Any) -> Any:
    raise LookupError("the stage is broken")


STAGES = ("device", "extract", "explore", "instantiate", "emit")


@pytest.mark.parametrize("stage", STAGES)
def test_any_stage_may_fail(stage: str, monkeypatch) -> None:
    import dataclasses

    broken = dataclasses.replace(STUB, **{stage: _broken})
    monkeypatch.setattr(pipeline, "default_stages", lambda: broken)

    def mine(x):
        return jnp.sin(x) @ x

    x = jnp.ones((3, 3))
    with pytest.warns(errors.Fallback, match=rf"mine.*its {stage} stage failed") as caught:
        got = prism.jit(mine)(x)
    assert caught[0].filename == __file__  # the warning points at the user's line
    assert len(caught) == 1
    assert jnp.array_equal(got, jax.jit(mine)(x))
    pipeline.forget()
    with pytest.raises(errors.StageError, match=rf"its {stage} stage failed: LookupError"):
        prism.jit(lambda x: mine(x), options=prism.Options(on_error="raise"))(x)
    with prism.options(on_error="raise"), pytest.raises(errors.StageError):
        prism.jit(lambda x: mine(x))(x)


def test_a_remembered_failure_is_raised_again(monkeypatch) -> None:
    import dataclasses

    stages = dataclasses.replace(STUB, explore=_broken)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    x = jnp.ones(3)
    with pytest.warns(errors.Fallback):
        prism.jit(lambda x: x * 2)(x)
    with pytest.raises(errors.StageError):
        prism.jit(lambda x: x * 2, options=prism.Options(on_error="raise"))(x)


def test_the_rooms_may_fail_to_import(monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "default_stages", _broken)
    with pytest.warns(errors.Fallback, match="its import stage failed: LookupError"):
        assert float(prism.jit(lambda x: x + 1)(1.0)) == 2.0


def _wrong(call: Any) -> Any:
    import dataclasses
    from types import SimpleNamespace

    emit = lambda outcome: SimpleNamespace(call=call, source="")  # noqa: E731
    return dataclasses.replace(STUB, emit=emit)


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (_broken, "LookupError: the stage is broken"),
        (lambda x: (x[:1],), r"returns float32\[1\] where the program returns float32\[3\]"),
        (lambda x: (x.astype(jnp.bfloat16),), r"returns bfloat16\[3\] where"),
        (lambda x: (x, x), r"returns float32\[3\], float32\[3\] where"),
    ],
)
def test_a_plan_that_does_not_fit_is_not_launched(call: Any, cause: str, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "default_stages", lambda: _wrong(call))
    x = jnp.arange(3.0)
    with pytest.warns(errors.Fallback, match=f"its launch stage failed: .*{cause}"):
        got = prism.jit(lambda x: x * 2)(x)
    assert jnp.array_equal(got, x * 2)


def test_a_defect_outside_the_stages_falls_back_too(monkeypatch) -> None:
    import dataclasses

    stages = dataclasses.replace(STUB, extract=lambda closed, options, name: None)
    monkeypatch.setattr(pipeline, "default_stages", lambda: stages)
    with pytest.warns(errors.Fallback, match="its pipeline stage failed: AttributeError"):
        assert float(prism.jit(lambda x: x + 1)(1.0)) == 2.0
    assert stub_extract is STUB.extract


def _outcome(call: Any) -> tuple[type[Any], str]:
    """The type and text of what a call raises or warns."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call()
    except Exception as error:
        return type(error), re.sub(r" at 0x[0-9a-f]+", "", str(error))
    return type(None), ""


# -- errors of the user's own program --------------------------------------------------------------


def _shape_error(x):
    return x @ jnp.ones((7, 7))


def _value_error(x):
    raise ValueError("mine")


def _needs_a_value(x):
    return 1 if x.sum() > 0 else 2


def _bad_output(x):
    return {"a": x, "b": "text"}


def _function_output(x):
    return len


def _index_error(x):
    return {}["missing"]


def _dtype_error(x):
    return jax.grad(lambda a: a.astype(int).sum())(x) + jax.grad(lambda a: a)(x)


def _nonhashable(x, s=None):
    return x


LEAK: list[Any] = []


def _leaks(x):
    LEAK.append(x * 2)
    return x


def _uses_leak(x):
    return x + LEAK[0]


@pytest.mark.parametrize(
    "fun",
    [_shape_error, _value_error, _needs_a_value, _bad_output, _function_output, _index_error,
     _dtype_error],
    ids=lambda f: f.__name__,
)  # fmt: skip
@pytest.mark.parametrize("stages", ["stub", "real"])
def test_user_errors_are_those_of_jax_jit(fun: Any, stages: str, monkeypatch) -> None:
    if stages == "stub":
        monkeypatch.setattr(pipeline, "default_stages", lambda: STUB)
    x = jnp.ones((3, 3))
    want = _outcome(lambda: jax.jit(fun)(x))
    assert issubclass(want[0], Exception)
    ours: Any = prism.jit(fun)
    assert _outcome(lambda: ours(x)) == want


@pytest.mark.parametrize("args", [(), (1, 2, 3), ("text",)])
def test_bad_calls_are_those_of_jax_jit(args: Any, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "default_stages", lambda: STUB)

    def f(x, y=0):
        return x

    want = _outcome(lambda: jax.jit(f)(*args))
    assert issubclass(want[0], TypeError)
    assert _outcome(lambda: prism.jit(f)(*args)) == want


@pytest.mark.parametrize(
    "keywords",
    [{"static_argnums": 5}, {"static_argnames": "nope"}, {"donate_argnums": "x"}, {"inlin": True}],
)
def test_bad_keywords_are_those_of_jax_jit(keywords: dict[str, Any]) -> None:
    def f(x):
        return x

    want = _outcome(lambda: jax.jit(f, **keywords)(1.0))
    assert want[0] is not type(None)
    assert _outcome(lambda: prism.jit(f, **keywords)(1.0)) == want


@pytest.mark.parametrize("bad", [3, "f", None])
def test_what_is_no_function(bad) -> None:
    if bad is not None:
        with pytest.raises(TypeError) as want:
            jax.jit(bad)
        with pytest.raises(TypeError) as got:
            prism.jit(bad)
        assert str(got.value) == str(want.value)
    entries: list[Any] = [prism.explain, prism.bisect, prism.optimize, prism.search]
    for function in entries:
        with pytest.raises(errors.NotAFunctionError, match=rf"prism\.{function.__name__} takes"):
            function(bad)


def test_unhashable_static_argument() -> None:
    for make in (jax.jit, prism.jit):
        with pytest.raises(ValueError, match="Non-hashable static arguments"):
            make(_nonhashable, static_argnums=1)(1.0, [1])


def test_tracer_leaks(monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "default_stages", lambda: STUB)
    texts: list[str] = []
    for make in (jax.jit, prism.jit):
        LEAK.clear()
        make(_leaks)(jnp.float32(1))
        with pytest.raises(jax.errors.UnexpectedTracerError) as caught:
            make(_uses_leak)(jnp.float32(1))
        texts.append(str(caught.value).split("\n")[0])
    LEAK.clear()
    assert texts[0] == texts[1]


def test_tracebacks_hide_our_frames() -> None:
    with pytest.raises(ValueError, match="mine") as caught:
        prism.jit(_value_error)(1.0)
    files = [entry.path for entry in caught.traceback]
    assert not [file for file in files if "prism_jax" in str(file)], files
