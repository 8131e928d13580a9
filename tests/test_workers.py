"""Worker processes: what raises, dies, hangs or allocates without end costs that call alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prism_jax.emit import workers
from prism_jax.emit.workers import CrashError, Kind, Pool, TargetError, TimeLimitError


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(lambda: os.environ)
    yield pool
    pool.close()


def gone(pid: int) -> bool:
    """Whether a process ended, perhaps without anyone having asked for its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(pid: int) -> None:
    end = time.monotonic() + 5.0
    while not gone(pid):
        assert time.monotonic() < end, f"process {pid} still runs"
        time.sleep(0.01)


def test_workers_are_reused_and_empty(pool: Pool) -> None:
    first = pool.run("os:getpid", timeout=20.0)
    assert first == pool.run("os:getpid", timeout=20.0) != os.getpid()
    loaded = pool.run("builtins:eval", "sorted(__import__('sys').modules)", timeout=20.0)
    assert not {"jax", "numpy", "triton"} & set(loaded)


def test_large_arguments_and_answers(pool: Pool) -> None:
    data = os.urandom(3_000_000)
    assert pool.run("builtins:bytes", data, timeout=20.0) == data


def test_an_exception_keeps_the_worker(pool: Pool) -> None:
    pid = pool.run("os:getpid", timeout=20.0)
    with pytest.raises(TargetError, match=r"^ZeroDivisionError: ") as caught:
        pool.run("operator:truediv", 1, 0, timeout=20.0)
    assert caught.value.kind == "ZeroDivisionError"
    assert "Traceback" in caught.value.detail
    assert pool.run("os:getpid", timeout=20.0) == pid


def test_a_crash_is_named_and_survived(pool: Pool) -> None:
    pid = pool.run("os:getpid", timeout=20.0)
    with pytest.raises(CrashError, match="signal SIGABRT"):
        pool.run("os:abort", timeout=20.0)
    write_and_die = "(__import__('os').write(2, b'LLVM ERROR: no'), __import__('os').abort())"
    with pytest.raises(CrashError, match=r"SIGABRT: LLVM ERROR: no$"):
        pool.run("builtins:eval", write_and_die, timeout=20.0)
    assert pool.run("os:getpid", timeout=20.0) != pid


def test_a_segmentation_fault_is_a_crash(pool: Pool) -> None:
    with pytest.raises(CrashError, match="signal SIGSEGV"):
        pool.run("builtins:eval", "__import__('ctypes').string_at(0)", timeout=20.0)
    assert pool.run("builtins:eval", "1 + 1", timeout=20.0) == 2


def test_a_worker_that_ended_while_idle_is_replaced(pool: Pool) -> None:
    pid = pool.run("os:getpid", timeout=20.0)
    os.kill(pid, signal.SIGKILL)
    wait_for(pid)
    assert pool.run("os:getpid", timeout=20.0) != pid
    # A reused worker that leaves politely is replaced and asked again; a new one must answer.
    with pytest.raises(CrashError, match="exit status 0"):
        pool.run("os:_exit", 0, timeout=20.0)


def test_a_hang_is_killed_with_its_children(pool: Pool, tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path / 'pid'}; sleep 60; true"
    start = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"stopped after 1\.0 s"):
        pool.run("os:system", script, timeout=1.0)
    assert time.monotonic() - start < 10.0
    wait_for(int((tmp_path / "pid").read_text()))


def test_others_go_before_nice_workers(pool: Pool) -> None:
    mine = os.nice(0)
    assert pool.run("os:nice", 0, timeout=20.0) == mine
    nice = Pool(lambda: os.environ, Kind(niceness=3))
    try:
        assert nice.run("os:nice", 0, timeout=20.0) == min(19, mine + 3)
        assert nice.run("os:getsid", 0, timeout=20.0) == os.getsid(0)  # else it means nothing
    finally:
        nice.close()


def test_memory_is_bounded(pool: Pool) -> None:
    with pytest.raises(TargetError, match="MemoryError"):
        pool.run("builtins:bytearray", workers.MEMORY_BYTES, timeout=20.0)
    # The same in small steps, each of which the system would grant.
    without_end = "[bytes(2**24) for _ in iter(int, 1)]"
    start = time.monotonic()
    with pytest.raises(TargetError, match="MemoryError"):
        pool.run("builtins:eval", without_end, timeout=30.0)
    assert time.monotonic() - start < 35.0
    assert pool.run("builtins:eval", "1 + 1", timeout=20.0) == 2


def test_map_gives_what_is_there(pool: Pool, tmp_path: Path) -> None:
    """The first result does not wait for the last, nor the first call for the last to be made."""
    go = tmp_path / "go"
    until = f"[0 for _ in iter(lambda: __import__('os').path.exists({str(go)!r}), True)] and 7 or 7"

    def calls() -> Iterator[tuple[str]]:
        yield ("1 + 1",)
        yield (until,)

    results = pool.map("builtins:eval", calls(), workers=2, timeout=20.0)
    assert next(results) == 2
    go.touch()
    assert list(results) == [7]
    # Who does not want the rest ends what works on it, and nothing where all is done.
    results = pool.map("time:sleep", [(0.0,), (30.0,)], workers=2, timeout=60.0)
    assert next(results) is None
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 10.0
    pid = pool.run("os:getpid", timeout=20.0)
    results = pool.map("os:getpid", [()], workers=1, timeout=20.0)
    assert next(results) == pid
    results.close()
    assert pool.run("os:getpid", timeout=20.0) == pid


def test_map_keeps_order_and_losses_apart(pool: Pool) -> None:
    calls = [("1",), ("__import__('os').abort()",), ("3",), ("1 / 0",), ("5",)]
    results = list(pool.map("builtins:eval", calls, workers=2, timeout=20.0))
    assert [r for r in results if isinstance(r, int)] == [1, 3, 5]
    assert isinstance(results[1], CrashError)
    assert isinstance(results[3], TargetError)
    assert list(pool.map("builtins:eval", [], workers=2, timeout=20.0)) == []


def test_deadline(pool: Pool) -> None:
    deadline = time.monotonic() + 1.0
    calls = [(30.0,)] * 4
    start = time.monotonic()
    results = list(pool.map("time:sleep", calls, workers=2, timeout=20.0, deadline=deadline))
    assert time.monotonic() - start < 5.0
    assert all(isinstance(result, TimeLimitError) for result in results)
    assert "not started" in str(results[-1])


def test_closing_ends_calls_under_way(pool: Pool) -> None:
    threading.Timer(0.7, pool.close).start()
    with pytest.raises(CrashError, match="SIGKILL"):
        pool.run("time:sleep", 30.0, timeout=20.0)


def test_workers_end_with_their_parent() -> None:
    program = (
        "import os, sys\nfrom prism_jax.emit.workers import Pool\n"
        "pool = Pool(lambda: os.environ)\n"
        "print(pool.run('os:getpid', timeout=20.0), flush=True)\n"
        "os._exit(0) if sys.argv[1] == 'at once' else None\n"
    )
    for how in ("at once", "cleanly"):
        command = [sys.executable, "-c", program, how]
        root = Path(__file__).parents[1]
        run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
        wait_for(int(run.stdout))
        assert run.stderr == ""


def test_a_fork_does_not_share_workers() -> None:
    program = (
        "import os\nfrom prism_jax.emit.workers import Pool\n"
        "pool = Pool(lambda: os.environ)\n"
        "mine = pool.run('os:getpid', timeout=20.0)\n"
        "child = os.fork()\n"
        "other = pool.run('os:getpid', timeout=20.0)\n"
        "assert (other == mine) == bool(child), (mine, other)\n"
        "if not child: pool.close(); os._exit(0)\n"
        "print(os.waitpid(child, 0)[1], pool.run('os:getpid', timeout=20.0) == mine)\n"
    )
    command = [sys.executable, "-c", program]
    root = Path(__file__).parents[1]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    assert run.stdout.split() == ["0", "True"]
