"""Processes that write one cache and are killed at any moment lose their own entry, no more."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prism_jax.cache.entry import Entry, decode
from prism_jax.cache.key import Key
from prism_jax.cache.store import PART, Store

#: Entries that all writers write, each with contents that name its number.
NAMES = 40
WRITER = f"""
import sys, types
root, folder, seed = sys.argv[1:]
for name in ("prism_jax", "prism_jax.cache"):  # without jax, which takes a second to import
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [root + "/" + name.replace(".", "/")]
key = sys.modules["prism_jax.cache.key"] = types.ModuleType("prism_jax.cache.key")

class Key:
    def __init__(self, parts):
        self.name = parts["name"]

key.Key = Key
import random
from pathlib import Path
from prism_jax.cache.entry import Entry
from prism_jax.cache.store import Store

draw = random.Random(seed)
store = Store(Path(folder), limit=600_000)
print("ready", flush=True)
while True:
    number = draw.randrange({NAMES})
    size = draw.choice([10, 3_000, 60_000])
    entry = Entry({{"key": {{"name": f"{{number:040x}}"}}, "number": number, "size": size}},
                  (bytes([number]) * size,))
    store.write(f"{{number:040x}}", entry)
    found = store.read(f"{{draw.randrange({NAMES}):040x}}")
    assert found is None or found.blobs[0] == bytes([found.values["number"]]) * len(found.blobs[0])
"""


def start(folder: Path, seed: int) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", WRITER, root, str(folder), str(seed)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


@pytest.mark.parametrize(
    ("writers", "kills"), [(3, 15), pytest.param(8, 200, marks=pytest.mark.long)]
)
def test_killed_writers_cost_nothing_but_their_entry(
    writers: int, kills: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, draw = tmp_path / "cache", random.Random(kills)
    first = Store(folder)
    outside = Key({"kept": "by another"})
    assert first.write(outside.name, Entry({"key": dict(outside.parts)}, (b"x" * 100,)))
    seen = 0
    running = [start(folder, number) for number in range(writers)]
    try:
        for kill in range(kills):
            time.sleep(draw.uniform(0.0, 0.03))
            victim = running.pop(draw.randrange(len(running)))
            assert victim.poll() is None, victim.communicate()[1]
            os.kill(victim.pid, signal.SIGKILL)
            victim.communicate()
            for file in first.files():
                data = first.raw(file.name)
                if data is None:  # evicted between the two calls
                    continue
                entry = decode(data)  # raises for anything half written
                number = entry.values.get("number")
                assert number is None or entry.blobs == (bytes([number]) * entry.values["size"],)
                seen += 1
            running.append(start(folder, 1000 + kill))
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert seen > kills
    assert first.size() <= 600_000 + writers * 61_000  # each may be killed before it evicts
    assert not [r for r in caplog.records if "damaged" in r.getMessage()]
    old = time.time() - 1e6
    for part in folder.glob(f".*{PART}"):
        os.utime(part, (old, old))
    first.prune(1e9)
    assert {path.suffix for path in folder.iterdir()} == {".prism"}


def test_all_writers_of_one_entry_agree_in_the_end(tmp_path: Path) -> None:
    """Many threads write and read one name at once: every read is whole."""
    from concurrent.futures import ThreadPoolExecutor

    store, key = Store(tmp_path), Key({"one": 1})

    def work(number: int) -> None:
        for _ in range(20):
            entry = Entry({"key": dict(key.parts), "n": number}, (bytes([number]) * 5000,))
            assert store.write(key.name, entry)
            found = store.read(key.name)
            assert found is not None
            assert found.blobs == (bytes([found.values["n"]]) * 5000,)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert [path.name for path in tmp_path.iterdir()] == [f"{key.name}.prism"]
