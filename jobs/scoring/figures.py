"""Scores of documents as a table: for people in Markdown, for programs in JSON.

Invariant: every figure is a mean, a median or a count over documents that the table names; what was not measured is blank.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.scoring.corpus import Score
from jobs.scoring.olmocr import count

_HEAD = (
    "", "documents", "pages", "ok", "blank", "degraded", "failed", "unexpected", "NID", "TEDS", "tests",
    "CPU-s a page, text layer", "CPU-s a page, pixels",
)  # fmt: skip


def figures(scores: Sequence[Score], allowed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """By category, by category and source, and in all; and one entry a document.

    Args:
        allowed: which states each value of `expect` allows; a value that is not in it allows any.
    """
    groups: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.entry.category].append(score)
        groups[f"{score.entry.category}/{score.entry.source}"].append(score)
    groups["all"] = list(scores)
    return {
        "groups": {name: _group(group, allowed) for name, group in sorted(groups.items())},
        "documents": {score.entry.path: _document(score, allowed) for score in scores},
    }


def _group(scores: Sequence[Score], allowed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    pages = [page for score in scores for page in score.read.pages]
    states = Counter(state for score in scores for state in score.read.states)
    return {
        "documents": len(scores),
        "pages": len(pages),
        "states": dict(sorted(states.items())),
        "unexpected": [score.entry.path for score in scores if not _as_expected(score, allowed)],
        "nid": _mean(score.nid for score in scores),
        "nid_documents": sum(score.nid is not None for score in scores),
        "teds": _mean(score.teds for score in scores),
        "teds_documents": sum(score.teds is not None for score in scores),
        "tests": _tests(scores),
        "cpu_s_text_layer": _median(page["cpu_s"] for page in pages if _read_from(page) == "text_layer"),
        "cpu_s_pixels": _median(page["cpu_s"] for page in pages if _read_from(page) == "pixels"),
    }


def _document(score: Score, allowed: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "expect": score.entry.expect,
        "states": dict(Counter(score.read.states)),
        "as_expected": _as_expected(score, allowed),
        "error_code": score.read.error_code,
        "nid": score.nid,
        "teds": score.teds,
        "tests": {test["id"]: result for test, result in score.tests},
        "cpu_s": [round(page["cpu_s"], 3) for page in score.read.pages if page["cpu_s"] is not None],
    }


def _tests(scores: Sequence[Score]) -> dict[str, dict[str, int]]:
    results: dict[str, list[bool | None]] = defaultdict(list)
    for score in scores:
        for test, result in score.tests:
            results[test["type"]].append(result)
            if result is not None:
                results["all"].append(result)
    return {kind: count(found) for kind, found in sorted(results.items())}


def _as_expected(score: Score, allowed: Mapping[str, Sequence[str]]) -> bool:
    states = allowed.get(score.entry.path) or allowed.get(score.entry.expect)
    return states is None or set(score.read.states) <= set(states)


def _read_from(page: Mapping[str, Any]) -> str:
    """Where most blocks of a page came from; "" for a page without any."""
    sources = Counter(block["source"] for block in page["blocks"] or [] if block["source"] != "none")
    return sources.most_common(1)[0][0] if sources else ""


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else None


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else None


def as_markdown(found: Mapping[str, Any], about: Mapping[str, object]) -> str:
    lines = ["# Corpus", "", *(f"* {key}: {value}" for key, value in about.items()), ""]
    lines += ["| " + " | ".join(_HEAD) + " |", "|---|" + "---:|" * (len(_HEAD) - 1)]
    lines += [_row(name, group) for name, group in found["groups"].items()]
    tests = found["groups"]["all"]["tests"]
    if tests:
        lines += ["", "| olmOCR tests | passed | failed | not run |", "|---|---:|---:|---:|"]
        lines += [f"| {kind} | {n['passed']} | {n['failed']} | {n['not_run']} |" for kind, n in tests.items()]
    unexpected = found["groups"]["all"]["unexpected"]
    if unexpected:
        lines += ["", "Ended otherwise than the manifest expects:", "", *(f"* `{path}`" for path in unexpected)]
    return "\n".join(lines) + "\n"


def _row(name: str, group: Mapping[str, Any]) -> str:
    states, tests = group["states"], group["tests"].get("all")
    cells = [
        name, group["documents"], group["pages"], *(states.get(s, 0) for s in ("ok", "blank", "degraded", "failed")),
        len(group["unexpected"]), _scored(group, "nid"), _scored(group, "teds"),
        f"{tests['passed']}/{tests['passed'] + tests['failed']}" if tests else "",
        _number(group["cpu_s_text_layer"], 2), _number(group["cpu_s_pixels"], 2),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _scored(group: Mapping[str, Any], key: str) -> str:
    return f"{group[key]:.3f} ({group[f'{key}_documents']})" if group[key] is not None else ""


def _number(value: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" if value is not None else ""
