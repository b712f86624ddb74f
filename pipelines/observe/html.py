"""The report as one self-contained page.

Invariant: everything that came from a document, a name or an error is escaped by the template engine; the page's own policy
forbids every request and every script and style but the two inside it, named by their hashes; every figure is one that
`Summary` counted or measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.errors import by_code
from pipelines.observe import figures
from pipelines.observe.figures import clock
from pipelines.observe.pages import ShownPage
from pipelines.observe.template import many, page
from pipelines.observe.view import PageView, page_view, short_name

_TONES = {"finished": "ok", "nothing_to_do": "ok", "interrupted": "degraded", "fenced": "failed", "failed": "failed"}
_RANKED = 12  # entries of a ranking
_KEYS = [
    (["j", "→"], "next page"), (["k", "←"], "page before"), (["n"], "next block"), (["p"], "block before"),
    (["b"], "boxes"), (["o"], "reading order"), (["z"], "whole page"), (["c"], "colour by label, certainty, source"),
    (["m"], "Markdown as stored"), (["/"], "search"), (["t"], "light, dark"), (["Esc"], "let go"),
]  # fmt: skip


def render(shown: Mapping[str, Any], pages: Sequence[ShownPage] = (), config_yaml: str = "") -> str:
    """The page.

    Args:
        shown: what report.json holds.
        pages: of the run, with their pictures.
        config_yaml: of the run, secrets left out.
    """
    views = [page_view(number, one, shown["source"]) for number, one in enumerate(pages, 1)]
    links = {(view.doc_id, view.page - 1): f"page-{view.number}" for view in views}
    return page(
        "report.html", ["report.css"], "report.js", shown=shown, pages=views, config_yaml=config_yaml, keyboard=_KEYS,
        title=f"pagemill report {shown['run_id']}",
        **_overview(shown), **_failures(shown, links), **_pages(shown, views), rankings=_rankings(shown, links),
        tables=_tables(shown),
    )  # fmt: skip


# -- sections --------------------------------------------------------------------------------------------------------


def _overview(shown: Mapping[str, Any]) -> dict[str, Any]:
    quality = shown.get("quality") or {}
    pages, documents = shown["pages"], shown["documents"]
    states = {**pages, **({"pending": shown["pending"]} if shown["pending"] else {})}
    sources, characters = quality.get("characters") or {}, sum((quality.get("characters") or {}).values())
    return {
        "status": shown["status"].replace("_", " "), "tone": _tone(shown), "when": _when(shown), "headline": _headline(shown),
        "sentences": _sentences(shown), "figures": _figures(shown),
        "page_slices": figures.slices(states, (*figures.STATES, "pending")),
        "document_slices": figures.slices(documents, figures.DOCUMENT_STATES),
        "curve": figures.curve(shown["timeline"], shown["seconds"]), "work": figures.worker_time(shown),
        "quality": _histograms(quality), "characters": characters,
        "source_slices": figures.slices(sources, ("text_layer", "pixels", "none")),
    }  # fmt: skip


def _tone(shown: Mapping[str, Any]) -> str:
    tone = _TONES.get(shown["status"], "blank")
    return "degraded" if tone == "ok" and shown["exit_code"] else tone


def _when(shown: Mapping[str, Any]) -> str:
    started = datetime.fromtimestamp(shown["started"], UTC)
    return f"{started:%-d %B %Y, %H:%M} UTC, took {clock(shown['seconds'])}"


def _headline(shown: Mapping[str, Any]) -> str:
    pages, documents = sum(shown["pages"].values()), sum(shown["documents"].values())
    if not pages and not documents:
        return "Nothing was left to do" if shown["status"] == "nothing_to_do" else "No page was read"
    read = pages - shown["pages"].get("failed", 0)
    of = many(pages, "page") if read == pages else f"{read:,} of {many(pages, 'page')}"
    verb = "was" if pages == 1 else "were"
    unopened = shown["documents"].get("failed", 0) + shown["documents"].get("encrypted", 0)
    among = f"{documents - unopened:,} of {many(documents, 'document')}" if unopened else many(documents, "document")
    return f"{of} {verb} read, from {among}" if documents else f"{of} {verb} read"


def _sentences(shown: Mapping[str, Any]) -> list[str]:
    pages, documents = shown["pages"], shown["documents"]
    unopened = documents.get("failed", 0) + documents.get("encrypted", 0)
    said = [
        (pages.get("failed", 0), "{} could not be read.", "page"),
        (unopened, "{} could not be opened or read at all.", "document"),
        (pages.get("degraded", 0), "With a recorded fallback or flag: {}.", "page"),
        (shown["pending"] or 0, "Left for the next run: {}.", "page"),
    ]
    found = [text.format(many(count, noun)) for count, text, noun in said if count]
    if shown["message"]:
        found.append(shown["message"])
    if not found and sum(pages.values()):
        found.append("Every page of every document is accounted for, and none failed.")
    return found


_PER_PAGE = (
    ("Tokens a page", "tokens", "that the model said, all tries together"),
    ("Crops a page", "crops", "that it was asked about"),
    ("Patches a page", "patches", "of their pictures, as the vision tower takes them"),
)


def _figures(shown: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value, unit, and what was measured."""
    quality = shown.get("quality") or {}
    first, sure = shown["first_commit_s"], figures.share_from(quality.get("confidence") or [], 0.9)
    blocks = sum((quality.get("labels") or {}).values())
    found = [
        ("Pages", f"{sum(shown['pages'].values()):,}", "", "committed in this run, in whatever state"),
        ("Documents", f"{sum(shown['documents'].values()):,}", "", "completed in this run, in whatever state"),
        ("Pages a second", f"{shown['pages_per_second']:.3g}", "", "over the whole command, start-up included"),
        ("Took", clock(shown["seconds"]), "", "from the start of the command to this report"),
    ]
    if first is not None:
        found.append(("First page after", clock(first), "", "from the start of the command to the first commit"))
    pages = sum(shown["pages"].values())
    for name, key, words in _PER_PAGE:
        if pages and quality.get(key):
            found.append((name, f"{quality[key] / pages:,.0f}", "", words))
    if blocks:
        found.append(("Blocks", f"{blocks:,}", "", "regions that were read, with their provenance"))
    if sure is not None:
        found.append(("Confidence 0.9 or more", f"{sure:.1f}", "%", "of the blocks whose reader gave a confidence"))
    return found


def _histograms(quality: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[float, float, int, str]], int]]:
    words = {
        "confidence": ("Confidence of the reader", "{:,} blocks that were read from pixels"),
        "agreement": ("Agreement of pixels with the text layer", "{:,} blocks where both were read"),
    }
    return [
        (title, key.format(sum(quality[name])), figures.histogram(quality[name]), sum(quality[name]))
        for name, (title, key) in words.items()
        if sum(quality.get(name) or [])
    ]


def _failures(shown: Mapping[str, Any], links: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    kinds = by_code()
    rows = []
    for failure in shown["failures"]:
        page, code = failure["page_index"], failure["code"]
        rows.append(
            {
                "code": code, "uri": failure["uri"], "page": None if page is None else page + 1, "message": failure["message"],
                "name": short_name(failure["uri"], shown["source"]) or (failure["doc_id"] or "")[:12],
                "again": code in kinds and kinds[code].transient,
                "link": links.get((failure["doc_id"], page)) if page is not None else None,
            }
        )  # fmt: skip
    counted = Counter(row["code"] for row in rows)
    return {
        "failures": rows, "failures_total": f"{len(rows) + shown['failures_left_out']:,}", "codes": counted.most_common(),
    }  # fmt: skip


def _pages(shown: Mapping[str, Any], views: Sequence[PageView]) -> dict[str, Any]:
    total, most = sum(shown["pages"].values()), len(views)
    blocks = [block for view in views for block in view.blocks]
    words = (
        "Every page of the run."
        if most == total
        else f"{most} of {total:,}: some of each state, the least sure, the rest at random."
    )
    if any(view.reason == "asked for" for view in views):
        words = "The pages that were asked for."
    names = {"text_layer": "text layer", "pixels": "pixels", "none": "not read"}
    return {
        "pages_words": words,
        "choices": {
            "states": sorted({view.state for view in views}),
            "labels": sorted({block.label for block in blocks}),
            "sources": [(source, names.get(source, source)) for source in sorted({block.source for block in blocks})],
        },
    }


def _rankings(shown: Mapping[str, Any], links: Mapping[tuple[str, int], str]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    def row(entry: Mapping[str, Any], value: str) -> dict[str, Any]:
        page = entry.get("page_index")
        return {
            "value": value, "uri": entry["uri"], "name": short_name(entry["uri"], shown["source"]) or entry["doc_id"][:12],
            "page": entry.get("pages", "") if page is None else page + 1, "state": entry.get("state"),
            "link": None if page is None else links.get((entry["doc_id"], page)),
        }  # fmt: skip

    return [
        ("Documents that cost most", "Worker time", [row(e, clock(e["seconds"])) for e in _first(shown, "slowest_documents")]),
        ("Slowest pages", "Worker time", [row(e, clock(e["seconds"])) for e in _first(shown, "slowest")]),
        ("Read least surely", "Certainty", [row(e, f"{e['certainty']:.2f}") for e in _first(shown, "doubtful")]),
    ]


def _tables(shown: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    listing = {**shown["listed"], **{f"skipped: {name}": count for name, count in shown["skipped"].items()}}
    quality = shown.get("quality") or {}
    engines = {**shown["engines"], "fingerprint": shown["fingerprint"], "Ray graphs": shown["graphs"]}
    exits = {"exit code": f"{shown['exit_code']} {shown['exit_meaning']}", "run": shown["run_id"]}
    found = [
        ("Read with", {**engines, **exits}),
        ("Workers that Ray ended for lack of memory, by node", shown.get("memory_kills") or {}),
        ("Objects listed", listing),
        ("Requests to the stores", shown["requests"]),
        ("Blocks by label", _by_count(quality.get("labels"))),
        ("Pages by flag", _by_count(quality.get("flags"))),
        ("Blocks that could not be read", _by_count(quality.get("block_errors"))),
    ]
    return [
        (heading, [(str(name).replace("_", " "), _plain(value)) for name, value in values.items()])
        for heading, values in found
        if values
    ]


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _first(shown: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return list(shown.get(name) or [])[:_RANKED]


def _by_count(counts: Mapping[str, int] | None) -> dict[str, int]:
    return dict(sorted((counts or {}).items(), key=lambda item: -item[1]))
