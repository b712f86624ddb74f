"""The run's report: JSON for programs, one plain self-contained page for people, and the last line at the terminal.

Invariant: everything that came from a document, a name or an error is escaped; the page makes no request; every figure is
one that `Summary` counted or measured.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

from pipelines.errors import ExitCode
from pipelines.observe.summary import Summary
from pipelines.store.objects import ObjectStore

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --ok: #2a8f5c; --blank: #8a94a6; --degraded: #c9881c; --failed: #c23b3b }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2.2rem 0 .5rem }
p { margin: .3rem 0 } .dim { opacity: .7 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right } .wrap { overflow-x: auto } code { font-size: .85em; overflow-wrap: anywhere }
.bar { display: flex; height: 1rem; border-radius: .25rem; overflow: hidden; background: var(--line) } .bar i { display: block }
svg { width: 100%; height: 8rem } polyline { fill: none; stroke: var(--ok); stroke-width: 2; vector-effect: non-scaling-stroke }
"""
_COLOURS = ["#2a8f5c", "#3b78c2", "#c9881c", "#8b5cc2", "#c25c8b", "#8a94a6", "#5aa7a7"]


def write_report(summary: Summary, store: ObjectStore, config_yaml: str, exit_code: ExitCode) -> dict[str, str]:
    """Writes report.json, report.html and config.yaml of the run; their keys below OUTPUT by name."""
    folder = f"runs/{summary.run_id}"
    shown = summary.as_dict() | {
        "exit_code": int(exit_code),
        "exit_meaning": exit_code.name,
        "nothing_to_do": summary.status == "nothing_to_do",
    }
    files = {
        "report.json": json.dumps(shown, indent=1).encode(),
        "report.html": render(shown).encode("utf-8", "replace"),
        "config.yaml": config_yaml.encode(),
    }
    for name, data in files.items():
        store.put(f"{folder}/{name}", data)
    return {name: f"{folder}/{name}" for name in files}


def render(shown: dict[str, Any]) -> str:
    """The page, from what report.json holds."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>pagemill {escape(shown['run_id'])}</title>"
    sections = [
        f"<h1>{escape(shown['status'].replace('_', ' '))}</h1>",
        f"<p class=dim><code>{escape(shown['run_id'])}</code> {escape(shown['source'])} &rarr; {escape(shown['output'])}</p>",
        f"<p>{escape(shown['message'])}</p>",
        _pages(shown),
        _stages(shown),
        _timeline(shown),
        _failures(shown),
        _slowest(shown),
        _plain("Listing", {**shown["listed"], **{f"skipped: {k}": v for k, v in shown["skipped"].items()}}),
        _plain("Requests to the stores", shown["requests"]),
        _plain("Read with", {**shown["engines"], "fingerprint": shown["fingerprint"]}),
    ]
    return f"{head}<style>{_STYLE}</style>{''.join(sections)}</html>"


def final_line(summary: Summary, exit_code: ExitCode, report: dict[str, str]) -> str:
    """What a person reads last: what happened, and where the results are."""
    output = summary.output.rstrip("/")
    if summary.status == "nothing_to_do":
        listed = sum(summary.listed.values())
        return f"nothing to do: {listed} objects listed, all done\nReport    {output}/{report.get('report.html', '')}"
    documents = _counted(summary.documents, "documents") or "0 documents"
    pages = _counted(summary.pages, "pages") or "0 pages"
    lines = [f"{summary.status}: {documents}; {pages}" + (f"; {summary.pending} pages pending" if summary.pending else "")]
    if summary.message:
        lines.append(summary.message)
    lines += [_failure_line(failure.as_dict()) for failure in summary.failures[:10]]
    if exit_code in (ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.INTERRUPTED):
        lines += [f"Markdown  {output}/markdown", f"Parquet   {output}/pages"]
        lines += [f"Report    {output}/{report['report.html']}"] if report else []
    return "\n".join(lines)


def _counted(counts: dict[str, int], noun: str) -> str:
    total = sum(counts.values())
    return f"{total} {noun} (" + ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) + ")" if total else ""


def _failure_line(failure: dict[str, Any]) -> str:
    page = "" if failure["page_index"] is None else f" page {failure['page_index'] + 1}"
    name = failure["uri"] or (failure["doc_id"] or "")[:12]
    return f"  {failure['code']}  {name}{page}  {failure['message'].splitlines()[0] if failure['message'] else ''}".rstrip()


def _pages(shown: dict[str, Any]) -> str:
    pages, total = shown["pages"], sum(shown["pages"].values())
    bar = "".join(
        f"<i style='width:{100 * pages[state] / total:.2f}%;background:var(--{state})'></i>"
        for state in ("ok", "blank", "degraded", "failed")
        if pages.get(state)
    )
    first = shown["first_commit_s"]
    words = [f"{total} pages in {shown['seconds']:.1f} s, {shown['pages_per_second']:.2f} a second"]
    words += [f"the first committed after {first:.1f} s"] if first is not None else []
    words += [f"{shown['pending']} pending"] if shown["pending"] else []
    return (
        f"<h2>Pages</h2><div class=bar>{bar}</div><p>{'; '.join(words)}</p>"
        + _table(pages)
        + "<h2>Documents</h2>"
        + _table(shown["documents"])
    )


def _stages(shown: dict[str, Any]) -> str:
    """Seconds of all workers by what they did; `starved` is waiting for input, `other` start-up and waiting at the end."""
    spent = {**shown["stage_seconds"], **shown["idle"]}
    whole = max(shown["workers"], 1) * shown["seconds"]
    spent["other"] = max(0.0, whole - sum(spent.values()))
    rows, bar = [], []
    for number, (stage, seconds) in enumerate(spent.items()):
        share, colour = 100 * seconds / whole if whole else 0.0, _COLOURS[number % len(_COLOURS)]
        bar.append(f"<i style='width:{share:.2f}%;background:{colour}' title='{escape(stage)}'></i>")
        rows.append(
            f"<tr><td><b style='color:{colour}'>&#9632;</b> {escape(stage)}<td class=n>{seconds:.1f} s<td class=n>{share:.1f} %"
        )
    return f"<h2>What {shown['workers']} workers did</h2><div class=bar>{''.join(bar)}</div><table>{''.join(rows)}</table>"


def _timeline(shown: dict[str, Any]) -> str:
    points = shown["timeline"]
    if len(points) < 2:
        return ""
    width, height = max(points[-1][0], 1e-9), max(points[-1][1], 1)
    line = " ".join(f"{100 * at / width:.2f},{40 - 40 * pages / height:.2f}" for at, pages in points)
    return (
        "<h2>Pages committed over time</h2><svg viewBox='0 0 100 40' preserveAspectRatio='none'>"
        f"<polyline points='0,40 {line}'/></svg><p class=dim>0 to {points[-1][0]:.0f} s, 0 to {points[-1][1]} pages</p>"
    )


def _failures(shown: dict[str, Any]) -> str:
    if not shown["failures"]:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(f['code'])}</code><td>{escape(f['uri'] or (f['doc_id'] or '')[:12])}"
        f"<td>{'' if f['page_index'] is None else f['page_index'] + 1}<td>{escape(f['message'][:300])}"
        for f in shown["failures"]
    )
    more = f"<p>and {shown['failures_left_out']} more</p>" if shown["failures_left_out"] else ""
    head = "<tr><th>code<th>document<th>page<th>message"
    return f"<h2>What failed</h2><div class=wrap><table>{head}{rows}</table></div>{more}"


def _slowest(shown: dict[str, Any]) -> str:
    if not shown["slowest"]:
        return ""
    rows = "".join(
        f"<tr><td class=n>{page['seconds']:.2f} s<td>{escape(page['uri'])}<td>page {page['page_index'] + 1}"
        for page in shown["slowest"]
    )
    return f"<h2>Slowest pages</h2><table>{rows}</table>"


def _plain(title: str, values: dict[str, Any]) -> str:
    return f"<h2>{escape(title)}</h2>{_table(values)}" if values else ""


def _table(values: dict[str, Any]) -> str:
    return "<table>" + "".join(f"<tr><td>{escape(str(k))}<td class=n>{escape(str(v))}" for k, v in values.items()) + "</table>"
