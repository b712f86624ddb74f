"""What changed in the text between two runs, of one output or of two.

Invariant: every page that either run read is counted; texts are compared page by page, in the order of blocks, tables as
their cells. Memory is bounded: page keys are joined in DuckDB, texts stream, only the most changed pages are kept.
"""

from __future__ import annotations

import difflib
import heapq
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from pipelines.observe.quality import BINS
from pipelines.schema import FURNITURE
from pipelines.store.reading import Output

_MOST_COMPARED = 5_000  # changed pages whose texts are compared word by word: some 10 ms each
_MOST_SHOWN = 60
_MOST_WORDS = 4_000  # of a page; a newspaper page has 3,000
_CONTEXT = 12  # equal words around a change
_TOKEN = re.compile(r"\n+|[^\S\n]+|[^\s]+")
_ROW_END, _CELL_END, _TAG = re.compile(r"</tr>"), re.compile(r"</t[dh]>\s*<t[dh][^>]*>"), re.compile(r"<[^>]*>")


_Code = tuple[str, int, int, int, int]  # of difflib: kind, from and to before, from and to after


@dataclass(slots=True, frozen=True, order=True)
class Change:
    """A page whose text or state differs; ordered by how much."""

    similarity: float  # of the two texts, 0..1, by words
    doc_id: str
    page_index: int
    uri: str = field(compare=False)
    states: tuple[str, str] = field(compare=False)
    pieces: list[tuple[str, str]] = field(compare=False)  # (equal | gone | new | left out, text)
    words: tuple[int, int] = field(compare=False)


@dataclass(slots=True)
class Comparison:
    runs: tuple[str, str]
    outputs: tuple[str, str]
    pages: tuple[int, int] = (0, 0)  # of each run
    both: int = 0
    equal: int = 0  # text and state
    states: Counter[tuple[str, str]] = field(default_factory=Counter)  # of pages that both read and whose state changed
    compared: int = 0  # changed pages whose words were compared
    similarity: list[int] = field(default_factory=lambda: [0] * BINS)  # of these
    words: tuple[int, int] = (0, 0)  # of these, in each run
    changes: list[Change] = field(default_factory=list)  # the most changed, most first

    @property
    def changed(self) -> int:
        return self.both - self.equal


def compare(before: Output, run_a: str, after: Output, run_b: str) -> Comparison:
    """
    Args:
        before, after: two openings, of one output or of two.

    Raises:
        ConfigError: no such run.
    """
    found = Comparison((run_a, run_b), (before.store.root, after.store.root))
    with TemporaryDirectory(prefix="pagemill-diff-") as folder:
        scratch = Path(folder)
        for output, run, name in ((before, run_a, "a"), (after, run_b, "b")):
            output.install_run(run)
            output.con.execute(
                f"""COPY (SELECT doc_id, page_index, state, md5(coalesce(markdown, '') || coalesce(error_code, '')) AS mark
                    FROM run_pages) TO '{scratch / name}.parquet'"""
            )
        _count(found, scratch)
        uris = dict(after.con.execute("SELECT doc_id, min(uri) FROM source_latest GROUP BY 1").fetchall())
        worst: list[tuple[float, Change]] = []
        for one, other in zip(_rows(before, scratch), _rows(after, scratch), strict=True):
            _add(found, worst, _change(one, other, uris.get(one["doc_id"], "")))
        found.changes = sorted(change for _, change in worst)
    return found


def _count(found: Comparison, scratch: Path) -> None:
    """Counts pages by what became of them; names those to compare, by a hash of their identity, in a file."""
    con = duckdb.connect(config={"temp_directory": str(scratch)})
    for name in ("a", "b"):
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM '{scratch / name}.parquet'")
    sizes = con.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchall()[0]
    found.pages = sizes
    states = con.execute(
        """SELECT a.state, b.state, count(*), count(*) FILTER (a.mark = b.mark AND a.state = b.state)
           FROM a JOIN b USING (doc_id, page_index) GROUP BY 1, 2"""
    ).fetchall()
    found.both, found.equal = sum(row[2] for row in states), sum(row[3] for row in states)
    found.states.update({(was, now): count for was, now, count, _ in states if was != now})
    con.execute(
        f"""COPY (SELECT doc_id, page_index FROM a JOIN b USING (doc_id, page_index)
            WHERE a.mark <> b.mark OR a.state <> b.state ORDER BY md5(doc_id || page_index) LIMIT {_MOST_COMPARED})
            TO '{scratch}/changed.parquet'"""
    )
    con.close()


def _rows(output: Output, scratch: Path) -> Iterator[dict[str, Any]]:
    chosen = output.con.sql(
        f"""SELECT doc_id, page_index, state, error_code, blocks FROM run_pages
            SEMI JOIN '{scratch}/changed.parquet' c USING (doc_id, page_index) ORDER BY doc_id, page_index"""
    )
    for batch in chosen.to_arrow_reader(64):
        yield from batch.to_pylist()


def _change(one: Mapping[str, Any], other: Mapping[str, Any], uri: str) -> Change:
    before, after = (_TOKEN.findall(page_text(row)) for row in (one, other))
    words = _count_words(before), _count_words(after)
    matcher = difflib.SequenceMatcher(None, before[: 2 * _MOST_WORDS], after[: 2 * _MOST_WORDS], autojunk=False)
    pieces = list(_pieces(matcher, before, after))
    states = str(one["state"]), str(other["state"])
    return Change(matcher.ratio(), str(one["doc_id"]), int(one["page_index"]), uri, states, pieces, words)


def _add(found: Comparison, worst: list[tuple[float, Change]], change: Change) -> None:
    found.compared += 1
    found.similarity[min(BINS - 1, int(change.similarity * BINS))] += 1
    found.words = found.words[0] + change.words[0], found.words[1] + change.words[1]
    entry = (-change.similarity, change)
    if len(worst) < _MOST_SHOWN:
        heapq.heappush(worst, entry)
    elif entry > worst[0]:
        heapq.heapreplace(worst, entry)


def _pieces(matcher: difflib.SequenceMatcher[str], before: list[str], after: list[str]) -> Iterator[tuple[str, str]]:
    """The page as runs of equal, gone and new text; long equal runs are cut to what stands around a change."""
    codes = _joined(matcher.get_opcodes(), before)
    for index, (kind, i0, i1, j0, j1) in enumerate(codes):
        if kind != "equal":
            if i1 > i0:
                yield "gone", "".join(before[i0:i1])
            if j1 > j0:
                yield "new", "".join(after[j0:j1])
            continue
        around = 2 * _CONTEXT  # a word and the space behind it
        head = around if index > 0 else 0
        tail = around if index < len(codes) - 1 else 0
        if i1 - i0 <= head + tail + around:
            yield "equal", "".join(before[i0:i1])
            continue
        if head:
            yield "equal", "".join(before[i0 : i0 + head])
        yield "left out", f"{_count_words(before[i0 + head : i1 - tail])} equal words"
        if tail:
            yield "equal", "".join(before[i1 - tail : i1])
    cut = max(len(before), len(after)) - 2 * _MOST_WORDS
    if cut > 0:
        yield "left out", f"and some {cut // 2} more words that were not compared"


def _joined(codes: Sequence[_Code], before: list[str]) -> list[_Code]:
    """Changes with nothing but a space between them as one: `nine hundred` became `900`, not two words two."""
    out: list[_Code] = []
    for code in codes:
        space = len(out) > 1 and out[-1][0] == "equal" and "".join(before[out[-1][1] : out[-1][2]]) == " "
        if code[0] != "equal" and space:
            out.pop()
            _, i0, _, j0, _ = out.pop()
            code = "replace", i0, code[2], j0, code[4]
        out.append(code)
    return out


def page_text(row: Mapping[str, Any]) -> str:
    """What a page says, block by block; tables as lines of cells. Headers, footers and page numbers are no part of it."""
    if row["error_code"]:
        return f"not read: {row['error_code']}"
    texts = [
        _table_text(block["html"]) if block["html"] else block["content"] or ""
        for block in row["blocks"] or []
        if block["label"] not in FURNITURE
    ]
    return "\n\n".join(filter(None, texts))


def _table_text(html: str) -> str:
    return unescape(_TAG.sub("", _CELL_END.sub(" | ", _ROW_END.sub("\n", html)))).strip("\n")


def _count_words(tokens: list[str]) -> int:
    return sum(not token.isspace() for token in tokens)
