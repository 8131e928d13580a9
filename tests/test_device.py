"""Device rows: complete, equal after a round trip through JSON, and kept in a file that may be
damaged.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from prism_jax import device


@pytest.mark.parametrize("name", [*sorted(device.ROWS), "CPU"])
def test_rows_are_complete_and_round_trip(name: str) -> None:
    row = device.row(name)
    numbers = {k: v for k, v in dataclasses.asdict(row).items() if isinstance(v, (int, float))}
    optional = {"compute_capability"} if row.kind == "cpu" else set()
    assert all(value > 0 for key, value in numbers.items() if key not in optional)
    assert device.Device.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert hash(row) == hash(device.Device.from_json(row.to_json()))


def test_rates_are_in_their_natural_order() -> None:
    for row in device.ROWS.values():
        assert row.rate("f16") > row.rate("tf32") > row.rate("f32") > row.rate("special")
        assert row.l2_bytes_per_s > row.dram_bytes_per_s


def test_row_without_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="special"):
        dataclasses.replace(device.ROWS["H100"], rates={"f16": 1.0, "tf32": 1.0, "f32": 1.0})


def test_unknown_name_lists_the_rows() -> None:
    with pytest.raises(KeyError, match="A100, H100, H200 and CPU"):
        device.row("B9000")


def test_unknown_gpu_scales_with_its_multiprocessors() -> None:
    half = device.for_gpu("NVIDIA something", 54)
    assert half.rate("f16") == device.ROWS["A100"].rate("f16") / 2
    assert half.smem_per_block == device.ROWS["A100"].smem_per_block


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "CPU"}', "null"])
def test_damaged_store_costs_a_measurement_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(device, "_calibrated", {})
    (tmp_path / device._FILE).write_text(content)
    row = device.cpu(tmp_path)
    assert row.kind == "cpu"
    monkeypatch.setattr(device, "_calibrated", {})
    monkeypatch.setattr(device, "calibrate_cpu", lambda: pytest.fail("store was not repaired"))
    assert device.cpu(tmp_path) == row


def test_unwritable_store_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_calibrated", {})
    (tmp_path / "file").write_text("a file where the folder should be")
    assert device.cpu(tmp_path / "file").name == "CPU"


def test_a_nominal_row_is_near_a_measured_one_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = device.cpu()
    monkeypatch.setattr(device, "_best", lambda *_: pytest.fail("measured"))
    nominal = device.nominal_cpu()
    assert nominal == device.nominal_cpu()
    assert nominal.kind == measured.kind
    assert (nominal.sm_count, nominal.l2_bytes) == (measured.sm_count, measured.l2_bytes)
    for unit in ("f16", "tf32", "f32", "special"):
        assert 0.05 < nominal.rate(unit) / measured.rate(unit) < 20.0


def test_naming_the_cpu_does_not_import_jax() -> None:
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('device', {device.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['device'] = module\n"
        "spec.loader.exec_module(module)\n"
        "module.current('cpu'); module.row('H100')\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
