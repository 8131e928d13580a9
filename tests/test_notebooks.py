"""Notebooks run from top to bottom, were executed before they were committed, show no failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A notebook's cells as one program. No kernel is needed: the value of a cell's last line is shown
# by IPython only, and plots go nowhere.
PREAMBLE = "import matplotlib; matplotlib.use('agg')\n"


def _cells(path: Path) -> list[dict[str, Any]]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{path.stem}.py"
    script.write_text(PREAMBLE + "\n".join("".join(cell["source"]) for cell in _cells(path)))
    # With -c the checkout is importable, as it is for a notebook that is started there.
    command = [sys.executable, "-c", f"import runpy; runpy.run_path({str(script)!r})"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_executed_in_order(path: Path) -> None:
    cells = [cell for cell in _cells(path) if cell["source"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert kinds
