"""`python -m jobs.parity VECTORS_DIR`: outputs of the official PaddleOCR-VL code, held against ours.

Invariant: compares with `strict_parity` on, where every difference but one is a mismatch: where the official code raised, ours
must give a result. Prints `name matched/total` for each file, what differs to stderr; exit code 1 on a mismatch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from jobs.common import guarded
from pipelines.assemble.official.markdown import page_markdown
from pipelines.assemble.official.page import OfficialBlock, block_records, official_page
from pipelines.assemble.official.tables import merge_tables
from pipelines.assemble.official.titles import Title, numbering, title_levels
from pipelines.config import PaddleOcrVlConfig, load
from pipelines.errors import ConfigError
from pipelines.layout import overlap
from pipelines.layout.labels import PICTURES, default_thresholds, own_label
from pipelines.layout.postprocess import PostOptions, detection_record, postprocess
from pipelines.recognize.crops import picture
from pipelines.recognize.merging import merge
from pipelines.recognize.otsl import otsl_to_html
from pipelines.recognize.plan import PROMPTS, make_plan
from pipelines.recognize.repetition import cut_repetition
from pipelines.schema import Box, Region

Vector = dict[str, Any]
_PAGE = 1000, 1400  # width and height of the end-to-end vectors' white page
_SHOWN = 3  # mismatches of a file that are printed


def _options() -> PaddleOcrVlConfig:
    return load(settings=["paddleocr_vl.strict_parity=true"]).paddleocr_vl


def _otsl(vector: Vector) -> Any:
    return otsl_to_html(vector["in"], strict=True)


def _repetition(vector: Vector) -> Any:
    return cut_repetition(vector["in"], vector["min_count"], strict=True)


def _overlap(vector: Vector) -> Any:
    boxes = vector["in"]
    regions = [
        Region(own_label(b["label"]), Box(*b["coordinate"]), b["score"], b["label"], _points(b.get("polygon_points", ())))
        for b in boxes
    ]
    return overlap.keep(regions, [b["label"] for b in boxes], outlines=True, strict=True)


def _points(points: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points)


def _layout(vector: Vector) -> Any:
    options = replace(PostOptions.of(_options()), threshold=default_thresholds(vector["threshold"]))
    return detection_record(postprocess(vector["raw"], vector["wh"][0], vector["wh"][1], options))


def _merge(vector: Vector) -> Any:
    blocks = [(block["label"], tuple(block["box"])) for block in vector["in"]]
    found = []
    for place in merge(blocks, {*PICTURES, "chart", "seal", "table"}):
        members = place.stack.members if place.stack else (place.index,)
        sizes = [(max(1, b[3] - b[1]), max(1, b[2] - b[0])) for b in (blocks[i][1] for i in members)]
        found.append(
            {
                "idx": place.index,
                "group_id": place.group,
                "aligns": list(place.stack.aligns) if place.stack else None,
                "img_hw": [sum(high for high, _ in sizes), max(wide for _, wide in sizes)] if place.leads else None,
            }
        )
    return found


def _tables(vector: Vector) -> Any:
    pages: list[list[OfficialBlock]] = []
    number = 0
    for given in vector["in"]:
        pages.append([])
        for label, box, content in given:
            pages[-1].append(OfficialBlock(label, tuple(box), content, global_block=number, global_group=number))
            number += 1
    merge_tables(pages, strict=True)
    return [[[block.content, block.global_block, block.global_group] for block in page] for page in pages]


def _levels(vector: Vector) -> Any:
    return title_levels([Title(text, (0, 0, width, height)) for text, width, height in vector["in"]])


def _symbol(vector: Vector) -> Any:
    return list(numbering(vector["in"]))


def _page(vector: Vector) -> Any:
    options = _options().model_copy(update=vector["opts"])
    regions = postprocess(vector["raw"], *_PAGE, PostOptions.of(options))
    asks = make_plan(regions, *_PAGE, options).asks
    white = np.full((_PAGE[1], _PAGE[0], 3), 255, np.uint8)
    asked = [[PROMPTS[ask.task], list(picture(white, ask, regions, options).shape[:2])] for ask in asks]
    said = vector.get("vlm", [])  # none where the official code raised
    answers = {ask.regions[0]: answer for ask, (*_, answer) in zip(asks, said, strict=False)}
    page = official_page(regions, answers, *_PAGE, options)
    return {
        "vlm": [[*question, answer] for question, (*_, answer) in zip(asked, said, strict=False)],
        "asked": len(asked),
        "blocks": block_records(page, options),
        "md": page_markdown(page, options, pretty=True, numbers=False),
        "md_plain": page_markdown(page, options, pretty=False, numbers=False),
        "md_num": page_markdown(page, options, pretty=True, numbers=True),
        "imgs": sorted(page.figures),
    }


def _page_wanted(vector: Vector) -> Any:
    wanted = {key: vector[key] for key in ("vlm", "blocks", "md", "md_plain", "md_num", "imgs")}
    return wanted | {"asked": len(vector["vlm"]), "imgs": sorted(vector["imgs"])}


KINDS: dict[str, Callable[[Vector], Any]] = {
    "otsl_to_html": _otsl,
    "otsl_to_html_clean": _otsl,
    "truncate_repetition": _repetition,
    "filter_overlap": _overlap,
    "layout_postprocess": _layout,
    "merge_blocks": _merge,
    "merge_tables": _tables,
    "title_levels": _levels,
    "title_symbol": _symbol,
    "page_end_to_end": _page,
}


@dataclass(slots=True)
class Held:
    """How one file of vectors compared."""

    name: str
    total: int = 0
    matched: int = 0
    declared: int = 0  # the official code raised
    differing: list[str] | None = None


def hold(file: Path) -> Held:
    """One file of vectors against our code."""
    held = Held(file.stem, differing=[])
    assert held.differing is not None
    for number, vector in _vectors(file):
        held.total += 1
        wanted = _page_wanted(vector) if held.name == "page_end_to_end" and "md" in vector else vector.get("out")
        raised = "__exc__" in vector or (isinstance(wanted, dict) and "__exc__" in wanted)
        try:
            got = KINDS[held.name](vector)
        except Exception as error:  # a mismatch like any other
            held.differing.append(f"line {number}: ours raised {type(error).__name__}: {error}")
            continue
        if raised:
            held.declared += 1
        elif got == wanted:
            held.matched += 1
        else:
            held.differing.append(f"line {number}: wanted {json.dumps(wanted, ensure_ascii=False)[:600]}\n  got {got!r:.600}")
    return held


def _vectors(file: Path) -> Iterator[tuple[int, Vector]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, json.loads(line)


def parity(folder: Annotated[Path, typer.Argument(metavar="VECTORS_DIR", help="folder of <kind>.jsonl")]) -> None:
    """Hold outputs of the official PaddleOCR-VL code against ours."""
    files = sorted(folder.glob("*.jsonl"))
    known = [file for file in files if file.stem in KINDS]
    if not known:
        raise ConfigError(f"{folder}: no file of a known kind; known: {', '.join(f'{kind}.jsonl' for kind in sorted(KINDS))}")
    failed = False
    for file in files:
        if file not in known:
            print(f"{file.name}: unknown kind, not compared", file=sys.stderr)
            continue
        held = hold(file)
        print(f"{held.name} {held.matched}/{held.total}")
        if held.declared:
            print(f"  {held.declared} declared: the official code raised (docs/parity.md), ours gave a result", file=sys.stderr)
        for text in (held.differing or [])[:_SHOWN]:
            print(f"  {text}", file=sys.stderr)
        failed |= bool(held.differing)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    guarded(parity)
