"""The doctor's sentences: each situation is named, and each problem comes with an action."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prism_jax import __main__, doctor
from prism_jax.options import Options

ALL = {
    "jax": "0.11.2", "jaxlib": "0.11.2", "numpy": "2.3.5", "sympy": "1.14.0", "triton": "3.6.0",
    "jax-triton": "0.3.1", "flax": "0.12", "equinox": "0.13", "optax": "0.2",
}  # fmt: skip


def _facts(without: str = "", **changes: Any) -> doctor.Facts:
    versions = {**ALL, **changes.pop("versions", {})}
    versions.pop(without, None)
    defaults: dict[str, Any] = {"backend": "gpu", "devices": ("NVIDIA H100 80GB HBM3",)}
    defaults["system"] = "Linux"
    return doctor.Facts(versions=versions, **{**defaults, **changes})


def test_a_complete_gpu_installation_has_nothing_to_do() -> None:
    findings = doctor.examine(_facts())
    assert {finding.state for finding in findings} == {"ok"}
    text = doctor.report(findings)
    assert "device row H100" in text
    assert "launched by XLA itself" in text
    assert "->" not in text


@pytest.mark.parametrize(
    ("facts", "said", "action"),
    [
        (_facts("triton"), "no kernel can be made", "pip install 'prism-jax[gpu]'"),
        (_facts("triton", system="Darwin"), "no kernel can be made", "use Linux"),
        (_facts(devices=("NVIDIA L4",)), "no device row for NVIDIA L4", "prism_jax/device.py"),
        (_facts("flax"), "the demo's transformer block", "pip install flax"),
        (_facts("sympy"), "closed forms", "pip install sympy"),
        (_facts(versions={"numpy": "2.4.6"}), "interpreter fails", "numpy<2.4"),
        (_facts(versions={"jax-triton": "0.4.1"}), "does not fit", "jax-triton==0.3.1"),
        (_facts(versions={"jax": "0.9.0"}), "older than this package", "jax>=0.10.2"),
        (_facts(cache_problem="/x: No space left"), "No space left", "PRISM_JAX_CACHE_DIR"),
        (_facts(settings=Options(enabled=False)), "switched off", "unset PRISM_JAX"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_problem_is_named_with_its_action(
    facts: doctor.Facts, said: str, action: str
) -> None:
    (finding,) = [f for f in doctor.examine(facts) if f.state != "ok"]
    assert said in finding.text
    assert action in finding.action


def test_cpu_machine_says_that_kernels_are_only_compiled() -> None:
    facts = _facts(backend="cpu", devices=("cpu",), versions={"jax-cuda13-plugin": "0.11.2"})
    text = doctor.report(doctor.examine(facts))
    assert "blocked lax or plain jnp" in text
    assert "can be compiled, not run" in text
    assert "H100" not in text


def test_how_kernels_are_launched_is_said() -> None:
    assert "by XLA itself" in doctor.report(doctor.examine(_facts("jax-triton")))
    older = _facts(versions={"jaxlib": "0.11.1"})
    assert "through jaxlib's kernel call" in doctor.report(doctor.examine(older))


def test_changed_settings_are_listed() -> None:
    facts = _facts(settings=Options(accuracy=1.5, device="A100"))
    text = doctor.report(doctor.examine(facts))
    assert "accuracy=1.5" in text
    assert "device row A100" in text


def test_a_finding_needs_an_action() -> None:
    with pytest.raises(ValueError, match="without an action"):
        doctor.Finding("missing", "something")


def test_unwritable_cache_folder_is_found(tmp_path: Path) -> None:
    def problem(name: str, cache: str = "on") -> str:
        return doctor._cache_problem(Options(cache=cache, cache_dir=str(tmp_path / name)))

    (tmp_path / "file").write_text("")
    assert "none" in problem("none", "read")
    assert problem("new") == problem("new", "read") == problem("file", "off") == ""
    assert "file" in problem("file")
    assert list((tmp_path / "new").iterdir()) == []


def test_the_cache_is_described(tmp_path: Path) -> None:
    (tmp_path / f"{0:040x}.prism").write_bytes(bytes(2**20))
    said = doctor._cache(Options(cache="on", cache_dir=str(tmp_path), cache_megabytes=5))
    assert said == f"{tmp_path} (1 entries, 1.0 of 5 MB)"
    for cache, words in (("on", "kept in here"), ("read", "read from here"), ("off", "not kept")):
        facts = _facts(cache="here", settings=Options(cache=cache))
        assert words in doctor.report(doctor.examine(facts))


def test_this_installation_can_be_examined(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    assert capsys.readouterr().out.startswith("ok       jax")


def test_doctor_runs_as_a_command_without_heavy_imports() -> None:
    code = (
        "import sys; from prism_jax import __main__ as m; m.main(['doctor'])\n"
        "heavy = {'triton', 'jax_triton', 'sympy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_command_line_names_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in __main__.COMMANDS)
    assert __main__.main(["dance"]) == 2
    assert "no command 'dance'" in capsys.readouterr().err
