"""The run's report: JSON for programs, one plain self-contained page for people.

Invariant: everything that came from a document or a name is escaped; no request leaves the page.
"""

from __future__ import annotations

import html
import json
from typing import Any

from pipelines.observe.summary import Summary
from pipelines.store.objects import ObjectStore


def write_report(summary: Summary, store: ObjectStore, config_yaml: str) -> dict[str, str]:
    """Writes report.json, report.html and config.yaml of the run; their keys."""
    folder = f"runs/{summary.run_id}"
    shown = summary.as_dict() | {"nothing_to_do": summary.status == "nothing_to_do"}
    files = {
        "report.json": json.dumps(shown, indent=1).encode(),
        "report.html": render(shown).encode(),
        "config.yaml": config_yaml.encode(),
    }
    for name, data in files.items():
        store.put(f"{folder}/{name}", data)
    return {name: f"{folder}/{name}" for name in files}


def render(shown: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th>{html.escape(key)}<td>{html.escape(str(value))}" for key, value in shown.items())
    return f"<!doctype html><meta charset=utf-8><title>pagemill run {shown['run_id']}</title><table>{rows}</table>"


def final_line(summary: Summary, exit_code: int) -> str:
    """The last line that a person reads."""
    return (
        f"{summary.status}: {summary.message} documents {dict(summary.documents)} pages {dict(summary.pages)} exit {exit_code}"
    )
