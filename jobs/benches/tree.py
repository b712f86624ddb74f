"""A command as a tree of processes: its wall time, its CPU seconds, its memory.

Invariant: memory is counted once, however many processes share it: PSS of every process, plus what of shared memory
(Ray's object store, memory files) no process has mapped at that moment.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

_MIB = 1 << 20


@dataclass
class Usage:
    """What a command took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0  # user and system of all processes seen; those that lived between two looks are missed
    cpu_by_name: dict[str, float] = field(default_factory=dict)  # the same by command, largest first
    peak_mib: float = 0.0
    at_peak: dict[str, float] = field(default_factory=dict)  # MiB by command, largest first
    exit_code: int = 0
    output: str = ""


def run(command: Sequence[str], *, every_s: float = 0.5, memory: bool = True, env: Mapping[str, str] | None = None) -> Usage:
    """Runs a command to its end and watches its tree.

    Args:
        memory: whether to look at memory, which costs some milliseconds a process and look.
    """
    usage = Usage()
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})}
    )
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, every_s, memory, usage, stop), daemon=True)
    watcher.start()
    usage.output, _ = process.communicate()
    usage.wall_s = time.perf_counter() - started
    usage.exit_code = process.returncode
    stop.set()
    watcher.join()
    return usage


def _watch(pid: int, every_s: float, memory: bool, usage: Usage, stop: threading.Event) -> None:
    spent: dict[tuple[int, float], tuple[str, float]] = {}
    while True:
        tree = family(pid)
        for process in tree:
            try:
                times = process.cpu_times()
                spent[process.pid, process.create_time()] = _name(process), times.user + times.system
            except psutil.Error:
                continue
        usage.cpu_by_name = _summed(spent.values())
        usage.cpu_s = sum(usage.cpu_by_name.values())
        if memory:
            by_name = memory_mib(tree)
            if (total := sum(by_name.values())) > usage.peak_mib:
                usage.peak_mib, usage.at_peak = total, by_name
        if stop.wait(every_s):
            return


def _summed(named: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in named:
        sums[name] = sums.get(name, 0.0) + value
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants that live now."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def memory_mib(tree: Sequence[psutil.Process]) -> dict[str, float]:
    """PSS by command, and shared memory that nobody has mapped, in MiB; largest first."""
    by_name: dict[str, float] = {}
    shared: dict[tuple[int, int], int] = {}
    mapped = 0
    for process in tree:
        try:
            pss, pss_shared = _pss(process.pid)
            shared.update(_shared_files(process.pid))
            name = _name(process)
        except (psutil.Error, OSError):
            continue  # it ended meanwhile
        mapped += pss_shared
        by_name[name] = by_name.get(name, 0.0) + pss / _MIB
    by_name["shared memory that is not mapped"] = max(0, sum(shared.values()) - mapped) / _MIB
    return dict(sorted(by_name.items(), key=lambda item: -item[1]))


def _pss(pid: int) -> tuple[int, int]:
    """(PSS, the part of it that is shared memory) in bytes."""
    found = {"Pss:": 0, "Pss_Shmem:": 0}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            key, _, rest = line.partition(" ")
            if key in found:
                found[key] = int(rest.split()[0]) << 10
    return found["Pss:"], found["Pss_Shmem:"]


def _shared_files(pid: int) -> dict[tuple[int, int], int]:
    """Allocated bytes of the memory files that a process holds open, by (device, inode)."""
    found = {}
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{descriptor}"
        try:
            target = os.readlink(path)
            if target.startswith(("/dev/shm/", "/memfd:")):
                stat = os.stat(path)
                found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
        except OSError:
            continue
    return found


def _name(process: psutil.Process) -> str:
    command = process.cmdline()
    first = os.path.basename(command[0]) if command else process.name()
    if first.startswith("python"):
        rest = [part for part in command[1:] if part and (part in ("-m", "-c") or not part.startswith("-"))]
        if len(rest) > 1 and rest[0] in ("-m", "-c"):
            return f"python {rest[0]} {rest[1].split()[0][:60]}"
        return f"python {os.path.basename(rest[0])}" if rest else "python"
    return first.split(" ")[0]
