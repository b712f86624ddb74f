"""A corpus: documents with ground truth, named by a `manifest.tsv`; and an output of pagemill held against it.

Invariant: only ground truth whose kind is `exact` or `human` is scored; a document that was not read scores 0, it is never
left out.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.scoring.markup import Table, tables
from jobs.scoring.olmocr import passes
from jobs.scoring.similarity import nid, teds
from pipelines.errors import ConfigError
from pipelines.source.listing import local_path

_TESTS, _TABLES, _TEXTS = ".tests.jsonl", ".tables.json", (".md", ".txt")


@dataclass(slots=True, frozen=True)
class Entry:
    """One row of the manifest."""

    path: str
    category: str
    source: str
    expect: str
    truth: tuple[str, ...]  # files with ground truth that may be scored


@dataclass(slots=True)
class Read:
    """What an output says of one document."""

    pages: list[dict[str, Any]] = field(default_factory=list)  # rows of `pages`, by page_index
    state: str = "absent"
    error_code: str | None = None

    @property
    def states(self) -> list[str]:
        return [page["state"] for page in self.pages] or [self.state]

    @property
    def markdown(self) -> str:
        return "\n\n".join(page["markdown"] or "" for page in self.pages)


@dataclass(slots=True)
class Score:
    """One document, scored; None: no ground truth of that kind."""

    entry: Entry
    read: Read
    nid: float | None = None
    teds: float | None = None  # of all its tables (text ground truth), or the mean over pages with tables
    tests: list[tuple[dict[str, Any], bool | None]] = field(default_factory=list)


def manifest(corpus: Path, only: Sequence[str] = ()) -> list[Entry]:
    """Rows whose path starts with one of `only` (all, where there is none).

    Raises:
        ConfigError: no `manifest.tsv`, or nothing in it starts so.
    """
    try:
        with open(corpus / "manifest.tsv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        raise ConfigError(f"{corpus}: no manifest.tsv here; name a folder that has one: CORPUS=DIR") from None
    found = [_entry(row) for row in rows if not only or row["path"].startswith(tuple(only))]
    if not found:
        raise ConfigError(f"{corpus}/manifest.tsv: no path starts with {' or '.join(only)}")
    return found


def _entry(row: dict[str, str]) -> Entry:
    scored = row["gt_kind"].startswith(("exact", "human"))
    files = tuple(name for name in row["gt_files"].split("|") if name) if scored else ()
    return Entry(row["path"], row["category"], row["source"], row["expect"], files)


def read_output(output: str, corpus: Path, entries: Sequence[Entry]) -> dict[str, Read]:
    """By path below the corpus what `output` holds of it."""
    import pagemill

    of_document: dict[str, Read] = defaultdict(Read)
    for page in pagemill.read(output, "pages").to_pylist():
        of_document[page["doc_id"]].pages.append(page)
    for row in pagemill.read(output, "documents").to_pylist():
        of_document[row["doc_id"]].state, of_document[row["doc_id"]].error_code = row["state"], row["error_code"]
    found: dict[str, Read] = {}
    of_path = {local_path(row["uri"]): row for row in pagemill.read(output, "sources").to_pylist()}
    for entry in entries:
        row = of_path.get(str((corpus / entry.path).resolve()))
        if row is None:
            found[entry.path] = Read()
        elif row["doc_id"] is None:
            found[entry.path] = Read(state="failed", error_code=row["error_code"])
        else:
            found[entry.path] = of_document[row["doc_id"]]
    return found


def score(entry: Entry, read: Read, corpus: Path) -> Score:
    result = Score(entry, read)
    for name in entry.truth:
        text = (corpus / name).read_text("utf-8")
        if name.endswith(_TESTS):
            result.tests = _run_tests(text, read)
        elif name.endswith(_TABLES):
            if result.teds is None:  # a second such file holds the same tables, annotated by another hand
                result.teds = _score_tables(json.loads(text), read)
        elif name.endswith(_TEXTS):
            result.nid = nid(text, read.markdown)
            result.teds = teds(tables(text), tables(read.markdown))
    return result


def _run_tests(text: str, read: Read) -> list[tuple[dict[str, Any], bool | None]]:
    of_page = {page["page_index"]: page["markdown"] or "" for page in read.pages}
    tests = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [(test, passes(test, of_page.get(test["page"] - 1, ""))) for test in tests]


def _score_tables(truth: list[dict[str, Any]], read: Read) -> float:
    """Mean over the pages that have tables: all of a page's against all that were read there."""
    wanted: dict[int, list[Table]] = defaultdict(list)
    for table in truth:
        wanted[table.get("page", 1) - 1] += tables(table["html"])
    of_page = {page["page_index"]: tables(page["markdown"] or "") for page in read.pages}
    scores = [teds(expected, of_page.get(page, [])) or 0.0 for page, expected in wanted.items()]
    return sum(scores) / len(scores)
