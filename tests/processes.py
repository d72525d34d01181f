"""Processes of their own without the wait: a server imports torch and its neighbours once, and each process is a clean fork of it.

What a new interpreter alone can show (what an import prints, another order of hashes) is tested with `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.multiprocessing
from torch.distributed.launcher import LaunchConfig, elastic_launch

from contrapose.cli import main

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])
SECONDS = 200


class Forked:
    """Work that has begun in a process of its own. What it has in common with `subprocess.Popen` is called as there."""

    def __init__(self, work: Callable[..., None], *arguments: Any, cwd: Path | None = None, **environment: str) -> None:
        ours, theirs = zip(*(CONTEXT.Pipe(duplex=False) for _ in ("stdout", "stderr")), strict=True)
        self._process = CONTEXT.Process(
            target=begin, args=(work, arguments, theirs, cwd, {**os.environ, **environment})
        )
        self._process.start()
        for end in theirs:
            end.close()  # else it would not end when the process does
        readers = ThreadPoolExecutor(len(ours))
        self._streams = [readers.submit(whole, end) for end in ours]
        readers.shutdown(wait=False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float = SECONDS) -> int:
        self._process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        return self.returncode

    def communicate(self, timeout: float = SECONDS) -> tuple[str, str]:
        self.wait(timeout)
        out, errors = (stream.result() for stream in self._streams)
        return out, errors


def whole(end: Connection) -> str:
    """All that comes through a pipe until the last process that writes into it has ended."""
    with end, open(end.fileno(), encoding="utf-8", closefd=False) as stream:
        return stream.read()


def begin(
    work: Callable[..., None],
    arguments: Sequence[Any],
    streams: Sequence[Connection],
    cwd: Path | None,
    environment: dict[str, str],
) -> None:
    """In the new process: what `subprocess` would have set, then the work."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.environ.clear()
    os.environ.update(environment)
    if cwd:
        os.chdir(cwd)
    work(*arguments)


def anew(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen:
    """`contrapose …` in a new interpreter, as a shell starts it: five seconds more than a fork takes."""
    return subprocess.Popen(
        [sys.executable, "-m", "contrapose", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(*words: str) -> None:
    """`contrapose …`, to be called in a process of its own."""
    sys.argv = ["contrapose", *words]
    main()


def at_once(number: int, work: Callable[..., None], *arguments: Any) -> None:
    """Have `work(process, *arguments)` done by several processes; what one of them raises is raised here."""
    torch.multiprocessing.start_processes(work, arguments, nprocs=number, start_method="forkserver")


def two_processes(work: Callable[..., None], *arguments: Any) -> None:
    """Have work done by two processes that torchrun's own launcher starts and watches; what one of them raises is told here."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="two",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="forkserver",
    )
    # in the main thread, the launcher would put its signal handlers in place of pytest's
    with ThreadPoolExecutor(1) as aside:
        aside.submit(elastic_launch(config, work), *arguments).result()
