"""Settings: validation, scope, environment, cache keys."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import prism_jax as prism
from prism_jax import errors
from prism_jax.options import (
    FIELDS,
    cache_folder,
    compiler_environment,
    current,
    read_environment,
    table,
)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("accuracy", "2", "Option accuracy must be a finite number of at least 1, not '2'."),
        ("accuracy", 0.5, "Option accuracy must be a finite number of at least 1, not 0.5."),
        ("accuracy", 1e999, "Option accuracy must be a finite number of at least 1, not inf."),
        ("accuracy", True, "Option accuracy must be a finite number of at least 1, not True."),
        ("on_error", "ignore", "Option on_error must be 'warn' or 'raise', not 'ignore'."),
        (
            "tune", True,
            "Option tune must be 'auto', 'off', 'background' or 'never', not True.",
        ),
        ("cache", None, "Option cache must be 'on', 'read' or 'off', not None."),
        ("trust_cache", "no", "Option trust_cache must be 'on', 'signed' or 'off', not 'no'."),
        (
            "cache_megabytes", 0,
            "Option cache_megabytes must be a number of megabytes, above zero, not 0.",
        ),
        ("backend", "cuda", "Option backend must be 'triton', 'lax', 'jnp' or None, not 'cuda'."),
        ("shadow", 1.5, "Option shadow must be a number from 0 to 1, not 1.5."),
        ("min_gain", -1, "Option min_gain must be a number from 0 to 1, not -1."),
        (
            "search_seconds", -1,
            "Option search_seconds must be a number of seconds, zero or more, not -1.",
        ),
        ("device", 3, "Option device must be a non-empty text or None, not 3."),
        (
            "enabled", "off",
            "Option enabled must be 'on' or 'off' (in Python: True or False), not 'off'.",
        ),
    ],
)  # fmt: skip
def test_bad_values_give_one_sentence(name: str, value: Any, sentence: str) -> None:
    with pytest.raises(errors.BadOptionValueError) as caught:
        prism.Options(**{name: value})
    assert str(caught.value) == sentence
    assert isinstance(caught.value, ValueError)


def test_unknown_names_give_one_sentence() -> None:
    for make in (prism.Options, lambda **kw: prism.options(**kw).__enter__()):
        with pytest.raises(errors.UnknownOptionError, match="did you mean 'accuracy'") as caught:
            make(acuracy=2)
        assert isinstance(caught.value, TypeError)


def test_options_are_values() -> None:
    a, b = prism.Options(accuracy=3), prism.Options(accuracy=3.0)
    assert a == b
    assert hash(a) == hash(b)
    assert a != prism.Options()
    with pytest.raises(AttributeError):
        a.accuracy = 1.0  # type: ignore[misc]
    assert a.replace(tune="off").accuracy == 3.0


def test_cache_key_has_exactly_what_decides_plans() -> None:
    names = {name for name, _ in prism.Options().key()}
    assert names == {
        "accuracy", "backend", "device", "min_gain", "search_seconds", "tune", "tune_seconds"
    }  # fmt: skip
    assert prism.Options(on_error="raise").key() == prism.Options().key()
    assert prism.Options(accuracy=5).key() != prism.Options().key()


def test_every_field_documents_itself() -> None:
    for name, field in FIELDS.items():
        assert field.metadata["help"], name
        assert field.metadata["environment"].startswith("PRISM_JAX")
        assert field.metadata["environment"] in table()
        assert field.metadata["rule"].check(field.metadata["default"]) == field.metadata["default"]


def test_scopes_nest_and_end() -> None:
    before = current()
    with prism.options(accuracy=4.0) as outer:
        assert current() is outer
        with prism.options(tune="off"):
            assert (current().accuracy, current().tune) == (4.0, "off")
        with prism.options(prism.Options(), min_gain=0.5):
            assert (current().accuracy, current().min_gain) == (2.0, 0.5)
        assert current() is outer
    with pytest.raises(RuntimeError, match="inside"), prism.options(accuracy=9.0):
        raise RuntimeError("inside")
    assert current() == before


def test_scopes_are_per_thread() -> None:
    seen: list[float] = []
    with prism.options(accuracy=7.0):
        thread = threading.Thread(target=lambda: seen.append(current().accuracy))
        thread.start()
        thread.join()
    assert seen == [2.0]


def test_a_scope_decides_for_what_is_traced_inside(monkeypatch) -> None:
    seen: list[float] = []

    @jax.jit
    def f(x):
        seen.append(current().accuracy)
        return x

    for accuracy in (2.0, 3.0, 2.0, 3.0):
        with prism.options(accuracy=accuracy):
            f(jnp.float32(1))
    assert seen == [2.0, 3.0]  # traced once for each setting, never reused for the other


def test_environment_is_read_and_validated() -> None:
    read = read_environment(
        {
            "PRISM_JAX": "off", "PRISM_JAX_ACCURACY": "1.5", "PRISM_JAX_ON_ERROR": "raise",
            "PRISM_JAX_BACKEND": "", "PRISM_JAX_CACHE_DIR": "folder", "HOME": "x",
        }
    )  # fmt: skip
    assert read == {
        "enabled": False, "accuracy": 1.5, "on_error": "raise", "backend": None,
        "cache_dir": "folder",
    }  # fmt: skip
    with pytest.raises(errors.BadOptionValueError) as caught:
        read_environment({"PRISM_JAX_SHADOW": "often"})
    assert str(caught.value) == (
        "Environment variable PRISM_JAX_SHADOW must be a number from 0 to 1, not 'often'."
    )


def test_misspelt_variable_is_noticed() -> None:
    errors.forget()
    with pytest.warns(errors.UnknownVariable, match="did you mean 'PRISM_JAX_TUNE'"):
        read_environment({"PRISM_JAX_TUEN": "off"})


def _run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_off_in_the_environment_disables_everything() -> None:
    code = (
        "import sys, jax, prism_jax as prism\n"
        "f = prism.jit(lambda x: x @ x, options=prism.Options(accuracy=3.0))\n"
        "f(jax.numpy.ones((2, 2)))\n"
        "print('prism_jax.extract' in sys.modules, prism.Options(enabled=True).enabled)\n"
    )
    assert _run(code, PRISM_JAX="off").stdout.split() == ["False", "False"]


def test_bad_environment_is_one_sentence_at_import() -> None:
    answer = _run("import prism_jax", PRISM_JAX_TUNE="maybe")
    assert answer.returncode != 0
    assert (
        answer.stderr.strip()
        .splitlines()[-1]
        .endswith(
            "Environment variable PRISM_JAX_TUNE must be 'auto', 'off', 'background' or 'never', "
            "not 'maybe'."
        )
    )


def test_options_expected() -> None:
    for call in (
        lambda: prism.jit(lambda x: x, options={"accuracy": 2}),  # type: ignore[arg-type]
        lambda: prism.optimize(lambda x: x, options=3),  # type: ignore[arg-type]
        lambda: prism.options({"accuracy": 2}).__enter__(),  # type: ignore[arg-type]
    ):
        with pytest.raises(errors.OptionsTypeError, match=r"options= takes a prism\.Options"):
            call()


def test_the_cache_lies_where_the_user_keeps_caches(monkeypatch) -> None:
    assert cache_folder(prism.Options(cache_dir="here")) == "here"
    monkeypatch.setenv("XDG_CACHE_HOME", os.sep + "caches")
    assert cache_folder(prism.Options()) == os.path.join(os.sep + "caches", "prism_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.sep + "user")
    assert cache_folder(prism.Options()) == os.path.join(os.sep + "user", ".cache", "prism_jax")
    monkeypatch.setenv("HOME", "relative")
    assert cache_folder(prism.Options()) is None


def test_only_what_changes_code_is_read_of_the_compilers(monkeypatch) -> None:
    for name in [n for n in os.environ if n.startswith(("XLA_", "TRITON_"))]:
        monkeypatch.delenv(name)
    assert compiler_environment() == {}
    monkeypatch.setenv("XLA_FLAGS", "--xla_b --xla_dump_to=here --xla_a=1")
    monkeypatch.setenv("TRITON_CACHE_DIR", "here")
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "1")
    assert compiler_environment() == {
        "XLA_FLAGS": "--xla_a=1 --xla_b", "TRITON_DISABLE_LINE_INFO": "1"
    }  # fmt: skip
