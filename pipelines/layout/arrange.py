"""From what a model found and where lines of text stand to the regions of a page, each with its lines, in reading order.

Invariant: pure and the same for lines of a text layer and for lines read from pixels. Every line is in exactly one region;
a region of text is exactly as large as its lines. Nothing that was read is left out because a model did not see it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipelines.layout.aligned import aligned_tables, columns_of, is_contents, is_tabular
from pipelines.layout.cues import (
    caption_kind,
    furniture,
    is_item,
    is_mark,
    is_note,
    is_page_number,
    looks_like_title,
)
from pipelines.layout.lines import TextLine, body_size, is_cjk, is_upright, merged, rows_of, same_row
from pipelines.layout.order import reading_order
from pipelines.layout.ruled import find_rules, grids, stacks
from pipelines.layout.rules import around
from pipelines.schema import Box, Pixels, RasterPage, Region

_INSIDE = 0.5  # share of a line that a region must hold to have it
_PAGE = 0.8  # share of a page beyond which one region of text says nothing
_ALIKE = 0.6  # intersection over union above which two regions of the model are one
_SURE = 0.55  # of the model: a region of text that counts against a table
_PROSE = 34  # letters of a line that is no label in a figure
_TEXT_IN_GRID = 0.012  # share of a grid of rules that is text; less is a drawing
_INK = 0.004  # share of a figure that is drawn, apart from text; less is no figure
_RULES = 0.025  # share of a table that is drawn, apart from text and rules: what of them was not found
_INK_CONTRAST = 40  # of 255, from the paper
_PARAGRAPH_GAP = 0.75  # of a line's height, beyond the usual distance of lines
_SIZE_CHANGE, _SIZE_CHANGE_SEEN = 0.15, 0.25  # of a text layer, of pixels
_SHARED = 0.5  # share of a group's rows that hold two lines or more: such a group may be columns
_DEEP = 0.16  # of the page's height: how far in a row with a page number may stand
_HEAD, _HEAD_SIZE = 110, 1.3  # letters of a running head at most, and its size, of the body's
_COLUMN = 15  # letters that a line in a column has at least; newspapers have 25 to 40
_NEXT_ROW = 0.8  # of the font size: white between two rows of a paragraph
_WORDS_OF_FORMULA = 6  # of four letters or more; more are prose


@dataclass(slots=True, frozen=True)
class Placed:
    """A region and its lines, from top to bottom."""

    region: Region
    lines: tuple[TextLine, ...]


def arrange(found: Sequence[Region], lines: Sequence[TextLine], page: RasterPage) -> list[Placed]:
    """
    Args:
        found: regions of a layout model, pixels.
        lines: all text of the page that counts, in any order.
    """
    height, width = page.pixels.shape[:2]
    whole = float(width * height)
    found = [r for r in _unlike(found) if r.label in ("table", "figure") or r.box.area < _PAGE * whole]
    tables = _tables(found, lines, page.pixels)
    figures = _figures(found, lines, tables, page.pixels)
    solid = [*tables, *figures]
    held, free = hold(solid, lines)
    texts = _texts([r for r in found if r.label not in ("table", "figure")], free, solid)
    placed = [
        Placed(region, tuple(inside)) for region, inside in zip(solid, held, strict=True) if inside or region.label == "figure"
    ]
    texts = [(region, column) for region, group in texts for column in _by_column(group)]
    body = body_size([line for _, group in texts for line in group] or lines)  # tables are often set smaller
    placed += [piece for region, group in texts for piece in _paragraphs(region, group, body)]
    placed = _furnished(placed, body, (float(width), float(height)))
    placed = [placed[i] for i in reading_order([piece.region.box for piece in placed])]
    placed.sort(key=lambda piece: piece.region.label == "footnote")  # notes end a page; they interrupt no text of a column
    return _lists(_whole(placed))


def place(regions: Sequence[Region], lines: Sequence[TextLine]) -> list[Placed]:
    """Lines to regions that are arranged already; those that none holds make regions of their own, in their place."""
    held, free = hold(regions, lines)
    placed = [Placed(region, tuple(own)) for region, own in zip(regions, held, strict=True)]
    own = [Placed(replace(r, box=around([line.box for line in group])), tuple(group)) for r, group in _texts([], free, regions)]
    if not own:
        return placed
    placed += own
    return [placed[i] for i in reading_order([piece.region.box for piece in placed])]


def as_text(lines: Sequence[TextLine], body: float) -> list[Placed]:
    """Lines of a region that is no table after all: paragraphs, titles and lists, in reading order."""
    placed = [piece for region, group in _texts([], lines, []) for piece in _paragraphs(region, group, body)]
    return _lists(_whole([placed[i] for i in reading_order([piece.region.box for piece in placed])]))


def _unlike(found: Sequence[Region]) -> list[Region]:
    """Of regions with nearly the same box the most certain."""
    kept: list[Region] = []
    for region in sorted(found, key=lambda r: (-r.score, r.box)):
        both = [other.box.overlap(region.box) for other in kept]
        if all(b < _ALIKE * (region.box.area + other.box.area - b) for b, other in zip(both, kept, strict=True)):
            kept.append(region)
    return kept


# -- tables and figures -------------------------------------------------------------------------------------------------


def _tables(found: Sequence[Region], lines: Sequence[TextLine], pixels: Pixels) -> list[Region]:
    """The model's, unless they are prose; those that rules draw; those whose text lines up."""
    rules, height = find_rules(pixels), pixels.shape[0]
    drawn = [box for box in grids(rules, height) if _fills(box, lines)]
    tables: list[Region] = []
    for region in found:
        own = inside(region.box, lines)
        known = [line.box for line in own] + [*rules.across, *rules.down]
        if region.label == "figure" and is_tabular(own) and not _is_drawn(pixels, region.box, known, _RULES):
            tables.append(replace(region, label="table"))
            continue
        gridded = sum(box.overlap(region.box) for box in drawn) > 0.25 * region.box.area
        if region.label != "table" or not own or _is_prose(own, region.box) or (not gridded and _is_columns(own)):
            continue
        within = [box for box in drawn if box.overlap(region.box) > 0.7 * box.area]
        if len(within) > 1 and sum(box.area for box in within) > 0.6 * region.box.area:
            continue  # several tables that the model took for one: their rules say where each is
        tables.append(replace(region, box=around([region.box, *within]) if within else region.box))
    tables += [Region("table", box, 0.0, "ruled") for box in drawn if _apart(box, tables)]
    _, free = hold([*tables, *(region for region in found if region.label == "figure")], lines)
    prose = [r.box for r in found if r.label in ("text", "reference") and r.score > _SURE]
    aligned = aligned_tables(free, prose)
    for stack in stacks(rules, height):
        if _apart(stack, tables) and is_tabular(inside(stack, free)):
            touching = [box for box in aligned if box.overlap(stack) > 0]
            aligned = [box for box in aligned if box not in touching] + [around([stack, *touching])]
    tables += [Region("table", box, 0.0, "aligned") for box in aligned]
    return [replace(table, box=_with_heads(table.box, free)) if table.native_label != "ruled" else table for table in tables]


def _with_heads(box: Box, free: Sequence[TextLine]) -> Box:
    """The box with the rows directly above it that stand over its columns: heads that a model or a rule left out."""
    above = [line for line in free if line.box.y1 < box.y0 + 0.5 * line.size and line.box.y1 > box.y0 - 12 * line.size]
    for row in reversed(rows_of(above)):
        size = max(line.size for line in row)
        near = box.y0 - max(line.box.y1 for line in row) < 1.4 * size
        over = all(box.x0 - size < line.box.x0 and line.box.x1 < box.x1 + size for line in row)
        short = all(len(line.text) < 40 for line in row)
        centred = row[0].box.x0 > box.x0 + 0.2 * box.width
        if not (near and over and short and (len(row) >= 3 or centred)) or caption_kind(row[0].text):
            break
        box = around([box, *(line.box for line in row)])
    return box


def _apart(box: Box, tables: Sequence[Region]) -> bool:
    return all(box.overlap(table.box) < 0.3 * min(box.area, table.box.area) for table in tables)


def _fills(box: Box, lines: Sequence[TextLine]) -> bool:
    """Whether a grid of rules holds a table: rows of text, not one paragraph in a frame and not a drawing."""
    own = inside(box, lines)
    rows = rows_of(own)
    if len(rows) < 2 or _is_prose(own, box):
        return False
    return is_tabular(own) or sum(line.box.area for line in own) > _TEXT_IN_GRID * box.area


def _is_prose(lines: Sequence[TextLine], box: Box) -> bool:
    """Whether most rows are one long line, or entries of a table of contents."""
    rows = rows_of(lines)
    if is_contents(rows):
        return True
    wide = sum(len(row) == 1 and row[0].box.width > 0.6 * box.width and len(row[0].text) > _PROSE for row in rows)
    return wide > 0.6 * len(rows) and len(rows) > 2


def _is_columns(lines: Sequence[TextLine]) -> bool:
    """Whether lines are as long as those of prose in columns, and do not stand as cells do."""
    return len(lines) > 5 and statistics.median(len(line.text) for line in lines) > _PROSE and not is_tabular(lines)


def _figures(found: Sequence[Region], lines: Sequence[TextLine], tables: Sequence[Region], pixels: Pixels) -> list[Region]:
    """The model's, cut down to what is drawn; text that reads as prose is no part of a figure."""
    figures = []
    for region in found:
        if region.label != "figure" or any(t.box.overlap(region.box) > 0.6 * region.box.area for t in tables):
            continue
        own = inside(region.box, lines)
        prose = [line for line in own if len(line.text) > _PROSE]
        if not prose:
            figures.append(region)
            continue
        if _is_drawn(pixels, region.box, [line.box for line in own]):
            figures.append(replace(region, box=_without(region.box, [line.box for line in prose])))
    return figures


def _is_drawn(pixels: Pixels, box: Box, text: Sequence[Box], least: float = _INK) -> bool:
    """Whether a region has ink that is no text."""
    height, width = pixels.shape[:2]
    x0, y0 = max(0, int(box.x0)), max(0, int(box.y0))
    grey = pixels[y0 : min(height, int(box.y1)), x0 : min(width, int(box.x1)), 1].astype(np.int16)
    if grey.size == 0:
        return False
    ink = np.abs(grey - int(np.median(grey))) > _INK_CONTRAST
    for line in text:
        left, top = max(0, int(line.x0) - x0 - 2), max(0, int(line.y0) - y0 - 2)
        ink[top : max(0, int(line.y1) - y0 + 3), left : max(0, int(line.x1) - x0 + 3)] = False
    return bool(ink.mean() > least)


def _without(box: Box, prose: Sequence[Box]) -> Box:
    """The box cut back to the larger side of prose that reaches into it."""
    for line in prose:
        if line.overlap(box) < _INSIDE * line.area:
            continue
        above, below = line.y0 - box.y0, box.y1 - line.y1
        box = box._replace(y1=line.y0) if above > below else box._replace(y0=line.y1)
    return box


def inside(box: Box, lines: Sequence[TextLine]) -> list[TextLine]:
    return [line for line in lines if box.overlap(line.box) >= _INSIDE * line.box.area]


def hold(regions: Sequence[Region], lines: Sequence[TextLine]) -> tuple[list[list[TextLine]], list[TextLine]]:
    """For each region its lines (of two that hold a line the smaller has it), and the lines that none holds."""
    held: list[list[TextLine]] = [[] for _ in regions]
    free: list[TextLine] = []
    for line in lines:
        having = [i for i, r in enumerate(regions) if r.box.overlap(line.box) >= _INSIDE * line.box.area]
        if having:
            held[min(having, key=lambda i: regions[i].box.area)].append(line)
        else:
            free.append(line)
    return held, free


# -- text ---------------------------------------------------------------------------------------------------------------

Group = tuple[Region, list[TextLine]]


def _texts(found: Sequence[Region], lines: Sequence[TextLine], solid: Sequence[Region]) -> list[Group]:
    """Lines by the model's regions; those that none has join the group that they go on, or make groups of their own."""
    held, free = hold(found, lines)
    groups: list[Group] = [(region, inside) for region, inside in zip(found, held, strict=True) if inside]
    own: list[Group] = []
    for row in rows_of(free):
        for line in row:
            group = _beside(line, groups) or _marked(line, own) or _goes_on(line, own, solid)
            if group is not None:
                group[1].append(line)
            else:
                own.append((Region("text", line.box, 0.0), [line]))
    return groups + own


def _by_column(lines: list[TextLine]) -> list[list[TextLine]]:
    """The lines of one group, or of each column where a box holds several: white runs through all rows between long lines."""
    rows = rows_of(lines)
    if sum(len(row) > 1 for row in rows) < max(3, _SHARED * len(rows)):
        return [lines]
    columns = columns_of([line.box for line in lines], body_size(lines))
    held = [[line for line in lines if left <= (line.box.x0 + line.box.x1) / 2 <= right] for left, right in columns]
    full = all(len(own) > 2 and statistics.median(len(line.text) for line in own) > _COLUMN for own in held)
    return held if len(held) > 1 and full else [lines]


def _beside(line: TextLine, groups: Sequence[Group]) -> Group | None:
    """The group of the model's that has a line in the same row, near: the model cut off a number or an indented start."""
    for group in groups:
        for other in group[1]:
            apart = max(line.box.x0 - other.box.x1, other.box.x0 - line.box.x1)
            shared = min(line.box.y1, other.box.y1) - max(line.box.y0, other.box.y0)
            if (
                apart < 2.5 * line.size
                and shared > 0.6 * min(line.box.height, other.box.height)
                and group[0].label not in ("header", "footer")
            ):
                return group
    return None


def _marked(line: TextLine, groups: Sequence[Group]) -> Group | None:
    """The group that so far is the mark of an item ("a.", a bullet) in the same row, to the left."""
    for group in groups:
        mark = group[1][-1]
        near = 0 < line.box.x0 - mark.box.x1 < 4 * line.size and same_row(mark.box, line.box)
        if near and is_mark(mark.text):
            return group
    return None


def _goes_on(line: TextLine, groups: Sequence[Group], solid: Sequence[Region]) -> Group | None:
    """The group whose last line this one follows, with nothing solid between them."""
    for group in reversed(groups):
        last = group[1][-1]
        overlap = min(last.box.x1, line.box.x1) - max(last.box.x0, line.box.x0)
        below = line.box.y0 - last.box.y1
        if overlap > 0.4 * min(last.box.width, line.box.width) and -0.6 * line.size < below < 0.9 * line.size:
            between = Box(min(last.box.x0, line.box.x0), last.box.y1, max(last.box.x1, line.box.x1), line.box.y0)
            if all(region.box.overlap(between) <= 0 for region in solid):
                return group
    return None


def _paragraphs(region: Region, lines: Sequence[TextLine], body: float) -> list[Placed]:
    """A group cut into paragraphs, titles and items; each a region of its own."""
    rows = [row for row in rows_of(lines) if row]
    if region.label == "formula":
        words = re.findall(r"[^\W\d_]{4,}", " ".join(line.text for line in lines))
        return [_piece(region, rows, "formula" if len(words) < _WORDS_OF_FORMULA else "text", body)]
    apart = [below[0].box.y0 - above[0].box.y0 for above, below in pairwise(rows)]
    usual = min(statistics.median(apart) if apart else 0.0, 1.5 * max(line.size for line in lines))
    left = min(row[0].box.x0 for row in rows)
    contents = len(rows) > 2 and is_contents(rows)
    pieces: list[list[list[TextLine]]] = [[rows[0]]]
    for number, row in enumerate(rows[1:], 1):
        above = rows[number - 1]
        following = rows[number + 1] if number + 1 < len(rows) else None
        if contents or _breaks(above, row, following, usual, left):
            pieces.append([])
        pieces[-1].append(row)
    return [_piece(region, piece, _label_of(region), body) for piece in pieces]


def _label_of(region: Region) -> str:
    return region.label if region.label != "reference" else "text"


def _breaks(
    above: Sequence[TextLine], row: Sequence[TextLine], below: Sequence[TextLine] | None, usual: float, left: float
) -> bool:
    """Whether a row begins a paragraph of its own."""
    first, last = row[0], above[0]
    size = max(first.size, 1.0)
    if _is_resized(first, last) and min(len(first.text), len(last.text)) > 3:
        return True
    if first.box.y0 - last.box.y0 > usual + _PARAGRAPH_GAP * size:
        return True
    if all(line.bold for line in row) != all(line.bold for line in above):
        return len(" ".join(line.text for line in above)) < 120
    if is_item(" ".join(line.text for line in row)) and first.box.x0 <= last.box.x0 + 2.0 * size:
        return True
    if is_item(" ".join(line.text for line in above)):
        return False  # the second row of an item hangs
    indented = 0.8 * size < first.box.x0 - left < 4 * size and last.box.x0 - left < 0.4 * size
    return indented and below is not None and below[0].box.x0 - left < 0.4 * size


def _is_resized(one: TextLine, other: TextLine) -> bool:
    """Whether two lines are set in type of different size; of lines read from pixels that is known less well."""
    least = _SIZE_CHANGE if one.confidence is None and other.confidence is None else _SIZE_CHANGE_SEEN
    return abs(one.size - other.size) > least * max(one.size, other.size)


def _piece(region: Region, rows: Sequence[Sequence[TextLine]], label: str, body: float) -> Placed:
    joined = [merged(row) for row in rows]
    text = " ".join(line.text for line in joined)
    kind = caption_kind(text)
    if (
        label in ("title", "text", "header", "footer", "figure_caption", "table_caption")
        and kind
        and len(text) < 600
        and (len(joined) < 4 or label != "text")
    ):
        label = kind
    elif label in ("text", "title"):
        label = "title" if looks_like_title(joined, body, region.label == "title") else "text"
    box = around([line.box for line in joined])
    return Placed(replace(region, label=label, box=box), tuple(line for row in rows for line in row))


# -- what stands where --------------------------------------------------------------------------------------------------


def _furnished(placed: Sequence[Placed], body: float, page: tuple[float, float]) -> list[Placed]:
    """Running heads, feet and page numbers get their labels; what the model wrongly called so loses it."""
    done: list[Placed] = []
    margin = _numbered_row(placed, body, page[1], top=True) | _numbered_row(placed, body, page[1], top=False)
    for piece in placed:
        others = [p.region.box for p in placed if p is not piece and not _in_margin(p.region.box, page[1])]
        inner = (min(b.y0 for b in others), max(b.y1 for b in others)) if others else (page[1], 0.0)
        label = piece.region.label
        text = " ".join(line.text for line in piece.lines)
        size = max((line.size for line in piece.lines), default=body)
        rows = len(rows_of(piece.lines))
        kind = margin.get(id(piece))
        if kind is None and label in ("text", "title", "header", "footer") and piece.lines and len(placed) > 1:
            kind = furniture(piece.region.box, text, rows, size, body, page, inner, label)
        if kind == "footer" and is_note(text) and size < 0.95 * body:
            kind = None
        if kind is None and label in ("text", "header", "footer") and _is_number_below(piece, placed):
            kind = "page_number"
        if kind is None and label in ("text", "title", "header") and _is_up_the_margin(piece, others):
            kind = "header"
        if kind:
            label = kind
        elif label in ("header", "footer"):
            label = "title" if looks_like_title(piece.lines, body, False) else "text"
        if label == "text" and is_note(text) and size < 0.93 * body and piece.region.box.y0 > 0.6 * page[1]:
            label = "footnote"
        done.append(Placed(replace(piece.region, label=label), piece.lines))
    return done


def _numbered_row(placed: Sequence[Placed], body: float, height: float, *, top: bool) -> dict[int, str]:
    """By identity the pieces of the first (or last) row of a page, where it is a page number and short lines beside it; such
    a row may stand further in than furniture does."""
    lined = [piece for piece in placed if piece.lines and piece.region.label not in ("table", "figure")]
    if len(lined) < 2:
        return {}
    outer = min(lined, key=lambda p: p.region.box.y0) if top else max(lined, key=lambda p: p.region.box.y1)
    row = [piece for piece in lined if same_row(piece.region.box, outer.region.box)]
    box = around([piece.region.box for piece in row])
    apart = [p.region.box.y0 - box.y1 if top else box.y0 - p.region.box.y1 for p in placed if p not in row]
    low = all(len(p.lines) == 1 and len(p.lines[0].text) < _HEAD and p.lines[0].size < _HEAD_SIZE * body for p in row)
    deep = box.y1 < _DEEP * height if top else box.y0 > (1 - _DEEP) * height
    if not (low and deep and len(row) <= 3 and apart and min(apart) > 0.3 * body):
        return {}
    if not any(piece.lines[0].text.isdigit() and len(piece.lines[0].text) < 5 for piece in row):
        return {}
    head = "header" if top else "footer"
    return {id(piece): "page_number" if is_page_number(piece.lines[0].text) else head for piece in row}


def _is_up_the_margin(piece: Placed, others: Sequence[Box]) -> bool:
    """Whether all lines of a piece run up or down beside everything else: what a publisher stamps on a page."""
    if not piece.lines or not others or not all(is_upright(line) and not is_cjk(line.text[0]) for line in piece.lines):
        return False
    box = piece.region.box
    return all(box.x1 < other.x0 or box.x0 > other.x1 for other in others if not _is_narrow(other))


def _is_narrow(box: Box) -> bool:
    return box.height > 2 * box.width


def _is_number_below(piece: Placed, placed: Sequence[Placed]) -> bool:
    """Whether a piece is a number with nothing beside or below it, and white above it."""
    text = " ".join(line.text for line in piece.lines)
    if not (text.isdigit() and len(text) < 5):
        return False
    size = piece.lines[0].size
    others = [p.region.box for p in placed if p is not piece]
    return bool(others) and all(box.y1 < piece.region.box.y0 - size for box in others)


def _in_margin(box: Box, height: float) -> bool:
    return box.y1 < 0.09 * height or box.y0 > 0.91 * height


def _whole(placed: Sequence[Placed]) -> list[Placed]:
    """Paragraphs that two boxes of the model share are one: the second begins in the middle of a sentence, in the next row."""
    done: list[Placed] = []
    for piece in placed:
        if done and _continues(done[-1], piece):
            box = around([done[-1].region.box, piece.region.box])
            done[-1] = Placed(replace(done[-1].region, box=box), (*done[-1].lines, *piece.lines))
        else:
            done.append(piece)
    return done


def _continues(above: Placed, below: Placed) -> bool:
    if above.region.label != "text" or below.region.label != "text":
        return False
    last, first = rows_of(above.lines)[-1], rows_of(below.lines)[0]
    size = max(last[-1].size, first[0].size)
    apart = first[0].box.y0 - last[-1].box.y1
    return (
        first[0].text[:1].islower()
        and not is_item(first[0].text)
        and not last[-1].text.endswith((".", "!", "?", ":", ";"))
        and not _is_resized(last[-1], first[0])
        and -0.6 * size < apart < _NEXT_ROW * size
        and abs(above.region.box.x0 - below.region.box.x0) < 4 * size
    )


def _lists(placed: Sequence[Placed]) -> list[Placed]:
    """Paragraphs that are items become lists: items that follow each other are one region, with what goes on with them."""
    done: list[Placed] = []
    for piece in placed:
        text = " ".join(line.text for line in piece.lines)
        last = done[-1] if done else None
        begins = piece.region.label == "text" and is_item(text)
        if piece.region.label != "text" or last is None or last.region.label != "list" or not _same_list(last, piece):
            done.append(Placed(replace(piece.region, label="list"), piece.lines) if begins else piece)
        elif begins or (text[:1].islower() and not last.lines[-1].text.endswith((".", ":", "!", "?"))):
            box = around([last.region.box, piece.region.box])
            done[-1] = Placed(replace(last.region, box=box), (*last.lines, *piece.lines))
        else:
            done.append(piece)
    return done


def _same_list(above: Placed, below: Placed) -> bool:
    size = below.lines[0].size
    return (
        abs(above.region.box.x0 - below.region.box.x0) < 4 * size
        and -size < below.region.box.y0 - above.region.box.y1 < 2.5 * size
    )
