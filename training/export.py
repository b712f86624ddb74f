"""Blocks of an output as training data: each a crop of its page and what was read there, or what a person made of it.

Invariant: a sample's picture is cut from the very raster that its answer was read from (same document by hash, same dpi,
same size in pixels), and its answer passes the checks of `training.sft`; what does not is left out and counted by reason.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.scoring.markup import tables
from pipelines.config import Config
from pipelines.errors import ConfigError, OutputUnwritable, PagemillError
from pipelines.observe.pages import PageDrawer
from pipelines.recognize.base import Task
from pipelines.recognize.plan import PROMPTS
from pipelines.schema import Pixels
from pipelines.source.manifest import Secret
from pipelines.store.choosing import Choice, choose
from pipelines.store.reading import Output
from training.answers import CHECKS
from training.sft import Turn, line_of

_TASKS: dict[str, Task] = {"table": "table", "formula": "formula"}  # by label; any other is read as text
_NEVER = ("figure",)  # labels without an answer

_QUERY = """
SELECT b.doc_id, b.page_index, b.block_index, b.label, b.content, b.html, b.raw, b.bbox_px, b.error_code, b.finish_reason,
       p.width_px, p.height_px, p.dpi, p.turned, p.unwarped, d.uris, d.options
FROM blocks b
JOIN pages p USING (doc_id, page_index)
JOIN documents d USING (doc_id)
JOIN chosen c USING (doc_id, page_index)
WHERE c.blocks IS NULL OR list_contains(c.blocks, b.block_index)
ORDER BY b.doc_id, b.page_index, b.block_index
"""

Key = tuple[str, int, int]


@dataclass(slots=True)
class Written:
    samples: Counter[str] = field(default_factory=Counter)  # by task
    skipped: Counter[str] = field(default_factory=Counter)  # by reason

    @property
    def total(self) -> int:
        return sum(self.samples.values())


def read_corrections(path: Path | None) -> dict[Key, str]:
    """What a person wrote instead: JSONL of {doc_id, page_index, block_index, text}.

    Raises:
        ConfigError: naming the line.
    """
    found: dict[Key, str] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path else [], 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            found[str(entry["doc_id"]), int(entry["page_index"]), int(entry["block_index"])] = str(entry["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: line {number}: expected doc_id, page_index, block_index and text ({error!r})") from None
    return found


def export(
    output: Output, choice: Choice, folder: Path, config: Config, corrections: Mapping[Key, str] | None = None,
    openers: Mapping[str, Secret] | None = None,
) -> Written:  # fmt: skip
    """Writes `folder/train.jsonl` and its crops.

    Args:
        choice: of pages, e.g. `state = 'ok'` and the ids of those that were reviewed.
        openers: by URI, what opens documents of a manifest.

    Raises:
        ConfigError: the choice is none, or `folder` has a train.jsonl already. OutputUnwritable
    """
    target = folder / "train.jsonl"
    if target.exists():
        raise ConfigError(f"{target} is there already: name another folder")
    choose(output, choice)
    rows = output.con.sql(_QUERY).to_arrow_table().to_pylist()
    try:
        (folder / "crops").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"cannot write {folder}: {error}") from error
    written = Written()
    partial = target.with_suffix(".partial")
    with _Pages(config, openers or {}) as pages, partial.open("w", encoding="utf-8") as out:
        for _, of_page in groupby(rows, key=lambda row: (row["doc_id"], row["page_index"])):
            for line in _page_lines(list(of_page), pages, folder, corrections or {}, written):
                out.write(line + "\n")
    partial.rename(target)
    return written


def _page_lines(
    blocks: Sequence[dict[str, Any]], pages: _Pages, folder: Path, corrections: Mapping[Key, str], written: Written
) -> Iterator[str]:
    pixels: Pixels | None = None
    drawn: tuple[Pixels | None, str | None] | None = None  # once a page, also where it cannot be had
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        key = block["doc_id"], block["page_index"], block["block_index"]
        task = _TASKS.get(block["label"], "ocr")
        answer = corrections.get(key)
        reason = None if answer is not None else _unusable(block, after)
        if reason is None and answer is None:
            answer = answer_of(block, task)
            check = CHECKS.get(task)
            reason = "answer fails its check" if check and check(answer) else None
        if reason is None:
            drawn = drawn or pages.pixels(block)
            pixels, reason = drawn
        if reason is not None or pixels is None or answer is None:
            written.skipped[reason or "no answer"] += 1
            continue
        name = f"crops/{block['doc_id'][:16]}-{block['page_index']}-{block['block_index']}.png"
        if not _crop(pixels, block["bbox_px"], folder / name):
            written.skipped["box outside the page"] += 1
            continue
        written.samples[task] += 1
        yield line_of([Turn(PROMPTS[task], (name,), answer)])


def _unusable(block: Mapping[str, Any], after: Mapping[str, Any] | None) -> str | None:
    """Why nothing can be learnt from a block as it was read."""
    if block["label"] in _NEVER:
        return "figure"
    if block["error_code"] or block["finish_reason"] in ("length", "repetition", "error"):
        return "not read to its end"
    if not (block["content"] or "").strip() and not block["html"]:
        return "empty"
    joined = after is not None and after["label"] == block["label"] == "text" and not (after["content"] or "").strip()
    return "read together with the next one" if joined and not (after or {})["error_code"] else None


def answer_of(block: Mapping[str, Any], task: Task) -> str:
    """What a model should have said: OTSL for a table, `\\[ ... \\]` around a formula, else the text."""
    if block["raw"]:
        return str(block["raw"]).strip()
    if task == "table":
        return html_to_otsl(block["html"] or "")
    text = (block["content"] or "").strip()
    if task == "formula":
        inner = text.removeprefix("$$").removesuffix("$$").removeprefix("\\[").removesuffix("\\]").strip()
        return f"\\[ {inner} \\]"
    return text


def html_to_otsl(markup: str) -> str:
    """The first table of some HTML as OTSL; spans become <lcel>, <ucel> and <xcel>."""
    found = tables(markup)
    grid: dict[tuple[int, int], str] = {}
    for r, row in enumerate(found[0].rows if found else []):
        c = 0
        for cell in row:
            while (r, c) in grid:
                c += 1
            for dr in range(cell.rowspan):
                for dc in range(cell.colspan):
                    grid[r + dr, c + dc] = "<xcel>" if dr and dc else "<ucel>" if dr else "<lcel>" if dc else _cell(cell.text)
    height = max((r for r, _ in grid), default=-1) + 1
    width = max((c for _, c in grid), default=-1) + 1
    return "".join("".join(grid.get((r, c), "<ecel>") for c in range(width)) + "<nl>" for r in range(height))


def _cell(text: str) -> str:
    plain = html.unescape(text).strip()
    return f"<fcel>{plain}" if plain else "<ecel>"


def _crop(pixels: Pixels, box: Sequence[float], path: Path) -> bool:
    """As the pipeline cuts: whole pixels, no margin."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (max(0, int(box[0])), max(0, int(box[1])), min(width, int(box[2])), min(height, int(box[3])))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return False
    Image.fromarray(pixels[y0:y1, x0:x1]).save(path)
    return True


class _Pages:
    """Pages of documents again, drawn as they were when they were read."""

    def __init__(self, config: Config, openers: Mapping[str, Secret]) -> None:
        self._drawer = PageDrawer(config, tuple(openers.values()))
        self._numbers = {uri: number for number, uri in enumerate(openers, 1)}

    def __enter__(self) -> _Pages:
        return self

    def __exit__(self, *_: object) -> None:
        self._drawer.close()

    def pixels(self, row: Mapping[str, Any]) -> tuple[Pixels | None, str | None]:
        """The page of a block, or why it cannot be had any more."""
        reason = "source gone or changed"
        options = self._drawer.config_of(row["options"] or "").paddleocr_vl
        drawn = {**row, "width_px": None}  # its size is judged here, to the pixel
        for uri in row["uris"] or []:
            try:
                made = self._drawer.draw(drawn, uri, options, self._numbers.get(uri, 0))
            except PagemillError as error:
                reason = f"page not drawn ({error.code})"
                continue
            if made.shape[:2] == (row["height_px"], row["width_px"]):
                return made, None
            reason = "page drawn in another size than it was read in"
        return None, reason
