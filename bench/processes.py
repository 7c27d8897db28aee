"""Programs under measurement: started, watched through /proc, and stopped with all that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from twotower.errors import OperationError

_ROOT: Final = Path(__file__).parent.parent
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS: Final = 20
_LOOK_SECONDS: Final = 0.02
_QUIET_LOOKS: Final = 10
"""So many looks in a row at which nothing runs: between two of its steps, a request may be nowhere."""
_DRAIN_SECONDS: Final = 120


class Memory(NamedTuple):
    """Of a program and all that it started: MB resident, and MB with what is shared in shares."""

    rss_mb: float
    pss_mb: float


@dataclass(frozen=True)
class Command:
    """What starts a program: its arguments, and the environment beside that of this process."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Program:
    """A program and all that it starts, by their parents."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    @contextmanager
    def running(cls, name: str, command: Command, log: Path) -> Iterator[Self]:
        """The program while the block runs, its output in a file."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                command.arguments,
                cwd=_ROOT,
                env={**os.environ, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        program = cls(name, process, log)
        try:
            yield program
        finally:
            program._stop()

    def check_running(self) -> None:
        """Raise OperationError, with its last words, if it has ended."""
        if self.process.poll() is not None:
            status = self.process.returncode
            raise OperationError(f"{self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace").strip()[-500:]

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        return sum(_cpu_seconds(pid) for pid in self._pids())

    def is_running(self) -> bool:
        """Whether a thread of it runs just now, or waits for a core."""
        return any(_stat(thread)[0] == "R" for pid in self._pids() for thread in _threads(pid))

    def memory(self) -> Memory:
        """What it has now."""
        parts = [_memory(pid) for pid in self._pids()]
        return Memory(sum(part.rss_mb for part in parts), sum(part.pss_mb for part in parts))

    def _pids(self) -> list[int]:
        children = defaultdict(list)
        for pid in _all_pids():
            children[_parent(pid)].append(pid)
        found = [self.process.pid]
        for pid in found:  # which grows as it goes
            found += children[pid]
        return found

    def _stop(self) -> None:
        started = self._pids()
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in started:
            with suppress(ProcessLookupError):  # as it should be: only what is left behind is killed
                os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until_idle(programs: Sequence[Program]) -> None:
    """Wait until the work left over from a load is done. Raises OperationError where it never is."""
    deadline = time.monotonic() + _DRAIN_SECONDS
    quiet = 0
    while quiet < _QUIET_LOOKS:
        if time.monotonic() > deadline:
            names = ", ".join(program.name for program in programs)
            raise OperationError(f"{names}: still busy {_DRAIN_SECONDS} s after the load")
        quiet = 0 if any(program.is_running() for program in programs) else quiet + 1
        time.sleep(_LOOK_SECONDS)


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    return int(_stat(Path(f"/proc/{pid}"))[1])


def _cpu_seconds(pid: int) -> float:
    user, system = _stat(Path(f"/proc/{pid}"))[11:13]
    return (int(user) + int(system)) / _TICKS


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _stat(folder: Path) -> list[str]:
    """A process's or thread's fields after its name, which may have spaces; zeros if it has ended."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 13


def _memory(pid: int) -> Memory:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        lines = []
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return Memory(kilobytes.get("Rss", 0) / 1024, kilobytes.get("Pss", 0) / 1024)
