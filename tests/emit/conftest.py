"""`pytest tests/emit --update-golden` rewrites the golden files of emitted source."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files")


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compares a text with its golden file, or writes the file."""

    def compare(name: str, text: str) -> None:
        path = FOLDER / f"{name}.txt"
        if request.config.getoption("--update-golden", default=False):
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no golden file {name}; run pytest tests/emit --update-golden"
        assert text == path.read_text(), "emitted source changed: review it, then --update-golden"

    return compare
