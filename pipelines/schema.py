"""The nouns that pass between stages, and the Arrow schemas of what is stored.

Invariant: a page ends in exactly one `PageState`, and every column that may differ between two equal runs carries the
metadata `volatile`. Coordinates are `(x0, y0, x1, y1)`, origin at the top left of the page as displayed (rotation
applied): `_pt` in PDF points (1/72 inch), `_px` in pixels of the rendered image.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.secrets import scrub

if TYPE_CHECKING:
    from pipelines.recognize.base import Answer, Crop
    from pipelines.recognize.splice import Kept

FORMAT_VERSION = "1.0"  # of the output; within a major version columns are only added

Pixels = npt.NDArray[np.uint8]


class PageState(StrEnum):
    OK = "ok"
    BLANK = "blank"
    DEGRADED = "degraded"  # read, but with a recorded fallback or flag
    FAILED = "failed"


class Box(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float

    def scaled(self, factor: float) -> Box:
        return Box(self.x0 * factor, self.y0 * factor, self.x1 * factor, self.y1 * factor)

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        return max(0.0, self.width) * max(0.0, self.height)

    def overlap(self, other: Box) -> float:
        """Area of the intersection."""
        w = min(self.x1, other.x1) - max(self.x0, other.x0)
        h = min(self.y1, other.y1) - max(self.y0, other.y0)
        return w * h if w > 0 and h > 0 else 0.0


# -- what the raster room makes -------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Word:
    """One word of a text layer."""

    text: str
    box: Box  # points
    line: int  # words of one line share it; increasing in the layer's own order
    size: float  # font size, points
    bold: bool = False


@dataclass(slots=True, frozen=True)
class RasterPage:
    """One page as pixels, with the text layer that came with it."""

    pixels: Pixels  # (height, width, 3) uint8, RGB, C-contiguous
    dpi: float  # of the pixels; lower than asked when the page was downscaled
    width_pt: float
    height_pt: float
    words: tuple[Word, ...] = ()
    hidden_words: tuple[Word, ...] = ()  # text that is not painted (render mode 3, white on white): an OCR layer or a trick
    flags: tuple[str, ...] = ()  # repaired, downscaled, truncated ...: each makes the page `degraded`
    hints: tuple[Region, ...] = ()  # what the library that drew it takes for regions, where it was asked; pixels
    cpu_s: float = 0.0  # what drawing it cost the process that drew it

    @property
    def scale(self) -> float:
        """Pixels per point."""
        return self.dpi / 72.0


@dataclass(slots=True, frozen=True)
class Probe:
    """What opening a document told."""

    format: str  # pdf, tiff, png, jpeg, webp
    page_count: int
    password: str | None = None  # the one of the configured list that opened it; never stored
    flags: tuple[str, ...] = ()  # repaired ...


# -- what layout and recognize make ---------------------------------------------------------------------------------

LABELS = (
    "title", "text", "list", "table", "figure", "figure_caption", "table_caption", "formula", "code",
    "header", "footer", "page_number", "footnote", "reference",
)  # fmt: skip
FURNITURE = frozenset({"header", "footer", "page_number"})  # left out of Markdown by default


@dataclass(slots=True, frozen=True)
class Region:
    """One box that a layout engine found, in reading order within its list."""

    label: str  # one of LABELS
    box: Box  # pixels
    score: float
    native_label: str = ""  # the engine's own word for it ("doc_title"), where it has one
    polygon: tuple[tuple[float, float], ...] = ()  # pixels; empty: the box is the shape
    order: int | None = None  # the engine's own reading order, 1-based; None where it gives none


@dataclass(slots=True)
class Block:
    """One region, read."""

    label: str
    box_px: Box
    content: str  # plain text; the caller escapes it for Markdown
    source: str  # pixels | text_layer | none (a figure)
    engine: str
    weights: str  # SHA-256 prefix of the weights that read it; "" for the text layer
    confidence: float | None = None
    html: str | None = None  # tables
    level: int | None = None  # titles: 1 is the highest
    image: str | None = None  # figures: name of the image file beside the document's Markdown
    finish_reason: str = "stop"  # stop | length | repetition | error
    seconds: float = 0.0
    native_label: str = ""  # as the layout engine said it
    raw: str | None = None  # a model's answer before repair, where repair changed it
    error_code: str | None = None  # why this block could not be read; the page goes on
    rung: str | None = None  # which step of the ladder gave the content, when it was not the first
    tokens: int | None = None  # output tokens of a model, all tries together
    tokens_saved: int | None = None  # by cutting a loop while it happened: the allowance that was left
    agreement: float | None = None  # 0..1, similarity to a trustworthy text layer, where both were read
    fingerprint: str = ""  # of a block that was read again by itself: with which; "": as its page


@dataclass(slots=True, frozen=True)
class Figure:
    """An image file to be stored beside the document's Markdown."""

    name: str  # <sha256>.png or .jpg
    data: bytes


@dataclass(slots=True, frozen=True)
class PageError:
    """Why a page failed; its words hold no credential, whoever said them."""

    code: str
    stage: str
    message: str
    trace: str = ""  # where it happened, if an exception of ours or of a library says so

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", scrub(self.message))


@dataclass(slots=True)
class PageWork:
    """A page on its way. A stage fills its part; one that fails sets `error`, and those after it pass it on."""

    doc_id: str
    page_index: int
    tries: int = 1  # which try of this page this is, over all runs
    raster: RasterPage | None = None
    turned: int | None = None  # degrees counter-clockwise by which the drawn page was set upright; None: nobody looked
    unwarped: bool = False  # whether its pixels were flattened after that; its text layer is left behind
    regions: list[Region] | None = None
    blocks: list[Block] = field(default_factory=list)
    crops: list[Crop] = field(default_factory=list)  # of vision-language models: from `crop` to `finish`
    answers: list[Answer | None] = field(default_factory=list)  # one a crop; None: not asked yet
    patches: int = 0  # that the model's vision tower took of its crops
    kept: Kept | None = None  # its reading before this one, of which only some blocks are read again
    fingerprint: str = ""  # with which most of it was read; "": as its span
    cuts: list[tuple[tuple[int, int, int, int], Pixels]] = field(default_factory=list)  # pixels of figures, by box
    figures: list[Figure] = field(default_factory=list)
    markdown: str = ""
    blank: bool = False
    flags: list[str] = field(default_factory=list)
    error: PageError | None = None
    timing: bool = False  # a deadline, a memory limit or a budget decided the outcome
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    cpu_s: float = 0.0  # of rasterize, layout and recognize, in the threads that did it
    # kept when the pixels are dropped
    width_pt: float | None = None
    height_pt: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    dpi: float | None = None

    @property
    def state(self) -> PageState:
        if self.error is not None:
            return PageState.FAILED
        if self.flags:
            return PageState.DEGRADED
        return PageState.BLANK if self.blank else PageState.OK


@dataclass(slots=True, frozen=True)
class Splice:
    """Of a page that was read these blocks are to be read again; its row is the one of this attempt in this part."""

    page: int
    blocks: tuple[int, ...]  # block_index
    part: str
    attempt: str


CANARY_REVISION = 0  # of pages that ride along and belong to no archive; those of documents count from 1


@dataclass(slots=True, frozen=True)
class Span:
    """At most N pages of one document: what fails, retries and commits. `pages` is ascending; a retry may have gaps."""

    doc_id: str
    revision: int
    pages: tuple[int, ...]
    uri: str  # where the bytes can be had
    page_count: int  # of the whole document
    format: str
    tries: int = 1
    flags: tuple[str, ...] = ()  # of the document: each of its pages carries them
    fingerprint: str = ""  # with which it is read; "": the run's
    splices: tuple[Splice, ...] = ()  # pages without one are read whole
    options: str = ""  # of the document alone, see pipelines/options.py
    layout_fingerprint: str = ""  # with these; "": the run's
    secret: int = 0  # number in the run's table of what opens it, from 1; 0: nothing is needed

    def only(self, pages: tuple[int, ...]) -> Span:
        """Some of its pages."""
        return dataclasses.replace(self, pages=pages, splices=tuple(splice for splice in self.splices if splice.page in pages))

    def cut(self, size: int) -> list[Span]:
        return [self.only(self.pages[i : i + size]) for i in range(0, len(self.pages), size)]


@dataclass(slots=True)
class SpanWork:
    """A span with its pages on their way."""

    span: Span
    attempt: str  # random, one per execution
    pages: list[PageWork]


@dataclass(slots=True, frozen=True)
class SpanReceipt:
    """What the write stage hands to the driver: these pages are in that part."""

    doc_id: str
    revision: int
    pages: tuple[int, ...]
    states: tuple[str, ...]
    codes: tuple[str, ...]  # error code, "" where there is none
    tries: int
    attempt: str
    part: str  # key below OUTPUT
    messages: tuple[str, ...] = ()  # parallel to pages, of failed ones, cut short; for the report, not for the ledger
    fingerprint: str = ""  # with which they were read
    options: str = ""  # of the document, as its span has them
    secret: int = 0  # the same; for who opens it again in this run, stored nowhere


# -- stored schemas -------------------------------------------------------------------------------------------------


def _v(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, metadata={"volatile": "1"})


_BOX = pa.list_(pa.float32())

BLOCK = pa.struct(
    [
        pa.field("block_index", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("level", pa.int8()),
        pa.field("content", pa.string()),
        pa.field("html", pa.string()),
        pa.field("image", pa.string()),
        pa.field("bbox_pt", _BOX),
        pa.field("bbox_px", _BOX),
        pa.field("source", pa.string()),
        pa.field("engine", pa.string()),
        pa.field("weights", pa.string()),
        pa.field("dpi", pa.float32()),
        pa.field("confidence", pa.float32()),
        pa.field("finish_reason", pa.string()),
        pa.field("native_label", pa.string()),
        pa.field("raw", pa.string()),
        pa.field("error_code", pa.string()),
        pa.field("rung", pa.string()),
        pa.field("tokens", pa.int32()),
        pa.field("tokens_saved", pa.int32()),
        pa.field("agreement", pa.float32()),
        pa.field("fingerprint", pa.string()),
        _v("seconds", pa.float32()),
    ]
)

REGION = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("native_label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("order", pa.int32()),
        pa.field("bbox_px", _BOX),
        pa.field("polygon_px", pa.list_(_BOX)),
    ]
)

PAGES = pa.schema(
    [
        pa.field("doc_id", pa.string()),
        pa.field("page_index", pa.int32()),
        pa.field("revision", pa.int32()),
        pa.field("state", pa.string()),
        pa.field("flags", pa.list_(pa.string())),
        pa.field("error_code", pa.string()),
        pa.field("error_stage", pa.string()),
        pa.field("error_message", pa.string()),
        _v("error_trace", pa.string()),
        pa.field("timing", pa.bool_()),
        pa.field("width_pt", pa.float32()),
        pa.field("height_pt", pa.float32()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("dpi", pa.float32()),
        pa.field("turned", pa.int16()),
        pa.field("unwarped", pa.bool_()),
        pa.field("markdown", pa.string()),
        pa.field("blocks", pa.list_(BLOCK)),
        pa.field("regions", pa.list_(REGION)),
        pa.field("fingerprint", pa.string()),
        pa.field("layout_fingerprint", pa.string()),
        _v("run_id", pa.string()),
        _v("attempt", pa.string()),
        _v("tries", pa.int32()),
        _v("span_first", pa.int32()),
        _v("span_pages", pa.int32()),
        _v("seconds", pa.map_(pa.string(), pa.float32())),
        _v("cpu_s", pa.float32()),
        _v("read_at", pa.timestamp("us", tz="UTC")),
    ]
)
