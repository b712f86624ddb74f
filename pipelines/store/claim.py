"""Who a driver is, and whether the one that wrote a claim still lives.

Invariant: a claim is called dead at once only on proof: same boot, same PID namespace, and no process with that pid and
start time. Everything else needs watching.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class Driver:
    """The identity that a claim carries."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    process_start: int  # clock ticks after boot

    def columns(self) -> dict[str, Any]:
        return asdict(self)


def this_driver() -> Driver:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    pid = os.getpid()
    return Driver(socket.gethostname(), boot_id, os.readlink("/proc/self/ns/pid"), pid, process_start(pid) or 0)


def process_start(pid: int) -> int | None:
    """Start time of a running process in clock ticks after boot; None when there is none (a zombie counts as none)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_gone(claim: Mapping[str, Any]) -> bool:
    """Whether it is certain that the process that wrote this claim record has ended."""
    me = this_driver()
    if claim["boot_id"] != me.boot_id or claim["pid_namespace"] != me.pid_namespace:
        return False
    return bool(process_start(claim["pid"]) != claim["process_start"])
