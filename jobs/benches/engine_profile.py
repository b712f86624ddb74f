"""Where an engine's card spends its time: kernels of some seconds, by PyTorch's profiler inside vLLM, added up by name.

Invariant: a kernel counts once, with the step that started it: one that only decodes, one that also takes crops, or none.
Rates measured under the profiler are too low (it slows the host); times of kernels are right.
"""

from __future__ import annotations

import bisect
import collections
import gzip
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_STEP = re.compile(r"execute_context_(\d+)\((\d+)\)_generation_(\d+)\((\d+)\)")  # vLLM's label: requests(tokens) of both kinds
_SHOWN = 24  # kernels, by time
_NAME = 96  # characters of a kernel's name that are shown


def profiling(folder: Path) -> dict[str, Any]:
    """Arguments of an engine whose worker writes a trace into `folder` between `start_profile` and `stop_profile`."""
    return {
        "profiler_config": {
            "profiler": "torch", "torch_profiler_dir": str(folder), "torch_profiler_with_stack": False,
            "torch_profiler_dump_cuda_time_total": False, "ignore_frontend": True,
        }
    }  # fmt: skip


@dataclass(slots=True)
class Profile:
    """
    Attributes:
        steps: number of them, by kind.
        answers: answers that a step worked on, in the mean, by kind.
        tokens: tokens that a step computed, in the mean, by kind.
        kernels: (name, kind of step) to (count, milliseconds).
        span_ms: from the first kernel's begin to the last one's end.
    """

    steps: collections.Counter[str] = field(default_factory=collections.Counter)
    answers: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    kernels: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    span_ms: float = 0.0

    def rows(self) -> list[dict[str, Any]]:
        whole = sum(ms for _, ms in self.kernels.values())
        longest = sorted(self.kernels.items(), key=lambda item: -item[1][1])[:_SHOWN]
        return [
            {
                "kernel": _short(name), "step": kind, "calls": count, "ms": round(ms, 1),
                "us a call": round(1000 * ms / count, 1), "share": f"{ms / whole:.1%}",
            }
            for (name, kind), (count, ms) in longest
        ]  # fmt: skip

    def notes(self) -> list[str]:
        whole = sum(ms for _, ms in self.kernels.values())
        lines = [f"kernels of {whole:.0f} ms in {self.span_ms:.0f} ms"]
        for kind, count in self.steps.items():
            took = sum(ms for (_, of), (_, ms) in self.kernels.items() if of == kind)
            lines.append(
                f"{count} steps that {kind}: {took / count:.2f} ms each, {self.answers[kind]:.0f} answers, "
                f"{self.tokens[kind]:,.0f} tokens"
            )
        return lines


def profile_of(trace: Path) -> Profile:
    """Adds up a trace in Chrome's format, as PyTorch writes it (times in microseconds)."""
    with gzip.open(trace) if trace.suffix == ".gz" else trace.open("rb") as file:
        events = json.load(file)["traceEvents"]
    steps = sorted((e["ts"], e["ts"] + e["dur"], e["name"]) for e in events if e.get("cat") == "gpu_user_annotation")
    steps = [step for step in steps if _STEP.match(step[2])]
    begins = [step[0] for step in steps]
    found, answers, computed = Profile(), collections.Counter[str](), collections.Counter[str]()
    for *_, name in steps:
        kind, count, tokens = _kind(name)
        found.steps[kind] += 1
        answers[kind] += count
        computed[kind] += tokens
    found.answers = {kind: answers[kind] / n for kind, n in found.steps.items()}
    found.tokens = {kind: computed[kind] / n for kind, n in found.steps.items()}
    first, last = float("inf"), 0.0
    for event in events:
        if event.get("cat") not in ("kernel", "gpu_memcpy", "gpu_memset"):
            continue
        begin, took = event["ts"], event["dur"]
        first, last = min(first, begin), max(last, begin + took)
        nth = bisect.bisect_right(begins, begin) - 1
        kind = _kind(steps[nth][2])[0] if nth >= 0 and begin < steps[nth][1] else "(between)"
        calls, ms = found.kernels.get((event["name"], kind), (0, 0.0))
        found.kernels[event["name"], kind] = calls + 1, ms + took / 1000
    found.span_ms = max(0.0, last - first) / 1000
    return found


def _kind(annotation: str) -> tuple[str, int, int]:
    """Kind of a step, how many answers it works on, how many tokens it computes."""
    matched = _STEP.match(annotation)
    assert matched is not None
    crops, prompts, answers, decoded = (int(each) for each in matched.groups())
    return ("take crops" if crops else "decode"), crops + answers, prompts + decoded


def _short(name: str) -> str:
    plain = re.sub(r"^void |\s+|at::native::|cutlass::|\(anonymous namespace\)::", "", name)
    return plain if len(plain) <= _NAME else plain[: _NAME - 1] + "…"
