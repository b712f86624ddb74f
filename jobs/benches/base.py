"""What every bench gives back: rows of figures with the circumstances in which they were measured.

Invariant: a row holds what was measured in this run and nothing else; goals stand in their own column.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_LIBRARIES = ("pagemill", "ray", "pyarrow", "duckdb", "pymupdf", "onnxruntime", "vllm", "torch")


@dataclass
class Figures:
    """A bench's result. `circumstances`: what a reader needs to judge or repeat it (corpus, dpi, workers, rounds)."""

    name: str
    circumstances: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, value: object, unit: str = "", goal: str = "") -> None:
        shown = round(value, 3) if isinstance(value, float) else value
        self.rows.append({"what": what, "value": shown, "unit": unit, "goal": goal})

    def as_dict(self) -> dict[str, Any]:
        return {
            "bench": self.name, "machine": machine(), "circumstances": self.circumstances,
            "rows": self.rows, "notes": self.notes,
        }  # fmt: skip

    def text(self) -> str:
        """A table for a person, columns as wide as they need to be."""
        lines = [f"{self.name}: " + ", ".join(f"{key} {value}" for key, value in self.circumstances.items())]
        lines += table(self.rows) + self.notes
        return "\n".join(lines)


def table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Rows with equal keys as aligned lines, numbers to the right."""
    shown = [{key: _cell(value) for key, value in row.items()} for row in rows]
    if not shown:
        return []
    names = list(shown[0])
    widths = {name: max(len(name), *(len(row[name]) for row in shown)) for name in names}
    head = "  ".join(name.ljust(widths[name]) for name in names).rstrip()
    body = ["  ".join(_aligned(row[name], widths[name]) for name in names).rstrip() for row in shown]
    return [head, *body]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() or cell[:1] == "-" else cell.ljust(width)


def machine() -> dict[str, Any]:
    """The machine as it was when the bench ended."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "libraries": libraries,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write_json(figures: Figures, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures.as_dict(), indent=1) + "\n", encoding="utf-8")
