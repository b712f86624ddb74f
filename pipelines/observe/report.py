"""What a run leaves for people and programs: report.json, report.html, config.yaml, and the last line at the terminal.

Invariant: the keys of report.json are a contract (docs/output.md), `schema` names their version: within a major version
keys are only added.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipelines.errors import ExitCode
from pipelines.observe.html import render
from pipelines.observe.log import printable
from pipelines.observe.pages import ShownPage
from pipelines.observe.summary import MEMORY_HINT, Summary
from pipelines.store.objects import ObjectStore

SCHEMA = "1.0"  # of report.json
_SAID = 10  # failures in the last lines


def write_report(
    summary: Summary, store: ObjectStore, config_yaml: str, exit_code: ExitCode, pages: Sequence[ShownPage] = ()
) -> dict[str, str]:
    """Writes report.json, report.html and config.yaml of the run; their keys below OUTPUT by name."""
    folder = f"runs/{summary.run_id}"
    shown = report_dict(summary, exit_code, pages)
    keys = {name: f"{folder}/{name}" for name in ("report.json", "config.yaml", "report.html")}
    store.put(keys["report.json"], json.dumps(shown, indent=1).encode())
    store.put(keys["config.yaml"], config_yaml.encode())
    store.put(keys["report.html"], render(shown, pages, config_yaml).encode("utf-8", "replace"))  # last: it can be made again
    return keys


def report_dict(summary: Summary, exit_code: ExitCode, pages: Sequence[ShownPage] = ()) -> dict[str, Any]:
    """What report.json holds."""
    return {
        "schema": SCHEMA,
        **summary.as_dict(),
        "exit_code": int(exit_code),
        "exit_meaning": exit_code.name,
        "nothing_to_do": summary.status == "nothing_to_do",
        "sample": [page.pick.as_dict() for page in pages],
    }


def final_line(summary: Summary, exit_code: ExitCode, report: dict[str, str]) -> str:
    """What a person reads last: what happened, and where the results are."""
    output = summary.output.rstrip("/")
    if summary.status == "nothing_to_do":
        listed = sum(summary.listed.values())
        words = "no page is as was asked for, or all are read" if summary.request else f"{listed} objects listed, all done"
        return f"nothing to do: {words}\nReport    {output}/{report.get('report.html', '')}"
    documents = _counted(summary.documents, "documents") or "0 documents"
    pages = _counted(summary.pages, "pages") or "0 pages"
    more = [f"; {_counted(summary.source_errors, 'objects not read')}"] if summary.source_errors else []
    more += [f"; {summary.pending} pages pending"] if summary.pending else []
    lines = [f"{summary.status}: {documents}; {pages}" + "".join(more)]
    if summary.message:
        lines.append(summary.message)
    if summary.published is False:
        drift = summary.canary["drift"] if summary.canary else ["they were not judged"]
        lines += ["NOT PUBLISHED: the canaries drifted", *(f"  {words}" for words in drift)]
        lines.append(f"  if that is as it should be: pagemill publish {summary.output} {summary.run_id} --as-baseline")
    if summary.memory_kills:
        lines.append(_memory_line(summary.memory_kills))
    if summary.status == "interrupted":
        lines.append(f"left      {_left(summary)}")
    lines += [_failure_line(failure.as_dict()) for failure in summary.failures[:_SAID]]
    if unsaid := len(summary.failures[_SAID:]) + summary.failures_left_out:
        lines.append(f"  ... and {unsaid} more: pagemill status {summary.output}, and the report")
    if exit_code in (ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.INTERRUPTED, ExitCode.UNPUBLISHED):
        lines += [f"Markdown  {output}/markdown", f"Parquet   {output}/pages"]
        lines += [f"Report    {output}/{report['report.html']}"] if report else []
    return "\n".join(lines)


def _memory_line(kills: dict[str, int]) -> str:
    nodes = ", ".join(f"{count} on {node}" for node, count in sorted(kills.items()))
    return f"memory    Ray ended workers because their node was short of it ({nodes}), and read again; {MEMORY_HINT}"


def _left(summary: Summary) -> str:
    pages = f"{summary.pending or 0} pages of documents under way"
    if summary.left_objects is None:
        return pages
    return f"{pages}, {summary.left_objects} other objects" + ("" if summary.listing_done else ", as far as the listing went")


def _counted(counts: dict[str, int], noun: str) -> str:
    total = sum(counts.values())
    return f"{total} {noun} (" + ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) + ")" if total else ""


def _failure_line(failure: dict[str, Any]) -> str:
    page = "" if failure["page_index"] is None else f" page {failure['page_index'] + 1}"
    name = failure["uri"] or (failure["doc_id"] or "")[:12]
    words = failure["message"].splitlines()[0] if failure["message"] else ""
    return printable(f"  {failure['code']}  {name}{page}  {words}").rstrip()
