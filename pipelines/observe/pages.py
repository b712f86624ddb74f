"""The chosen pages of a report: their rows from the parts, their pictures drawn again from the source.

Invariant: the pixels of two pages at most, one being drawn and one becoming a picture; native code that touches a document
runs in the raster child, within the same deadline and memory as in the run; a page whose row or picture cannot be had says
why and costs no other page. Drawing again gives the pixels that were read (P5), so boxes fit; where the size differs, the
picture is left out rather than wrong.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.config import Config, PaddleOcrVlConfig
from pipelines.errors import PagemillError, as_named
from pipelines.layout.orientation import turned
from pipelines.layout.unwarp import Unwarper, load_unwarper
from pipelines.observe.sample import Pick
from pipelines.options import resolver
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.schema import BLOCK, PAGES, Pixels
from pipelines.source.cache import DocumentCache
from pipelines.source.manifest import Secret, opening
from pipelines.store.objects import ObjectStore

_WIDTH, _HEIGHT = 1200, 2400  # pixels of a picture at most: an A4 page at 144 dpi stays as it is, 40 to 120 kB a page
_QUALITY = 62  # of WebP: 50 kB for a dense A4 page; 80 takes 40 % more and looks the same at this size
_EFFORT = 2  # of 6: 30 ms a page where 4, the default, takes 75 for a file that is 3 % smaller (1: 24 ms, 26 % larger)
_THUMB_WIDTH, _THUMB_HEIGHT = 96, 132
_BUDGET_S = 60.0  # for all pictures of a run's report; 13 A4 pages took 1.9 s of CPU, fetching not counted
_BLOCK_FIELDS = [field.name for field in BLOCK]
_NEVER_DRAWN = ("fetch", "rasterize")  # stages of an error after which there is nothing to draw


@dataclass(slots=True, frozen=True)
class Picture:
    """A page as `data:` URIs (WebP)."""

    page: str
    thumb: str


@dataclass(slots=True, frozen=True)
class ShownPage:
    """A page as the report shows it."""

    pick: Pick
    row: dict[str, Any] | None  # of `PAGES`; None: see note
    picture: Picture | None
    note: str = ""  # why there is no row or no picture


class PageDrawer:
    """Draws pages of source documents. A context manager: it holds a child process once it has drawn."""

    def __init__(self, config: Config, secrets: Sequence[Secret] = ()) -> None:
        """
        Args:
            secrets: what opens documents of a manifest, by the numbers that `draw` is given.
        """
        self._config = config
        self._secrets = secrets
        self.config_of = resolver(config)  # of a document with options of its own
        self._cache: DocumentCache | None = None
        self._rasterizer: IsolatedRasterizer | None = None
        self._unwarper: Unwarper | None = None

    def draw(self, row: dict[str, Any], uri: str, options: PaddleOcrVlConfig | None = None, secret: int = 0) -> Pixels:
        """The page's pixels as they were read.

        Args:
            options: with which the document was read; None: those of the configuration.
            secret: number of what opens it, from 1; 0: nothing is needed.

        Raises:
            PagemillError: the document or the page cannot be had any more, or is not what was read.
        """
        source, raster = self._config.source, self._config.raster
        if self._cache is None:
            self._cache = DocumentCache.of(source)
            self._rasterizer = IsolatedRasterizer(raster.engine, raster.deadline_s, raster.memory_mib)
        assert self._rasterizer is not None
        link, passwords = opening(uri, secret, self._secrets, source.passwords)
        with self._cache.use(row["doc_id"], link, source.storage_options) as path:
            page = self._rasterizer.render(
                str(path), passwords, row["page_index"], row["dpi"] or raster.dpi, raster.max_megapixels
            )
        options = options or self._config.paddleocr_vl
        strict = options.strict_parity and options.use_doc_orientation_classify
        pixels = turned(page, row.get("turned") or 0, strict).pixels
        if row.get("unwarped"):
            self._unwarper = self._unwarper or load_unwarper(self._config)
            pixels = self._unwarper.flat(pixels)
        height, width = pixels.shape[:2]
        read = row["width_px"], row["height_px"]
        if read[0] and max(abs(width - read[0]), abs(height - read[1])) > 1:
            raise PagemillError(f"drawn again it has {width} x {height} pixels, but {read[0]} x {read[1]} were read")
        return pixels

    def close(self) -> None:
        if self._rasterizer is not None:
            self._rasterizer.close()

    def __enter__(self) -> PageDrawer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def shown_pages(picks: Iterable[Pick], store: ObjectStore, drawer: PageDrawer, budget_s: float) -> Iterator[ShownPage]:
    """Each chosen page with its row and picture; after `budget_s` without pictures.

    Args:
        store: the output.
    """
    until = time.monotonic() + budget_s
    before: Callable[[], ShownPage] | None = None
    with ThreadPoolExecutor(1, "pictures") as beside:  # a page is drawn while the one before becomes a picture
        for pick in picks:
            page = _begun(pick, store, drawer, None if time.monotonic() > until else beside, budget_s)
            if before is not None:
                yield before()
            before = page
        if before is not None:
            yield before()


def pages_of_run(picks: Sequence[Pick], store: ObjectStore, config: Config, secrets: Sequence[Secret] = ()) -> list[ShownPage]:
    """The sample at a run's end. Never raises: a report without pictures is better than a run without a report."""
    if not picks:
        return []
    with PageDrawer(config, secrets) as drawer:
        return list(shown_pages(picks, store, drawer, _BUDGET_S))


def _begun(
    pick: Pick, store: ObjectStore, drawer: PageDrawer, beside: ThreadPoolExecutor | None, budget_s: float
) -> Callable[[], ShownPage]:
    """A page that was drawn, as what waits for its picture.

    Args:
        beside: where pixels become pictures; None: there is no time for that any more.
    """
    try:
        row = read_row(store, pick)
    except Exception as error:  # a part that cannot be had costs this page only
        return partial(ShownPage, pick, None, None, f"its row cannot be read: {as_named(error)}")
    if row["error_stage"] in _NEVER_DRAWN:
        return partial(ShownPage, pick, row, None, "It could not be drawn when it was read.")
    if beside is None:
        return partial(ShownPage, pick, row, None, f"Not drawn: the report's {budget_s:g} s for pictures were used up.")
    try:
        options = drawer.config_of(pick.options).paddleocr_vl
        picture = beside.submit(picture_of, drawer.draw(row, pick.uri, options, pick.secret))
    except Exception as error:
        return partial(_without_picture, pick, row, error)
    return partial(_with_picture, pick, row, picture)


def _with_picture(pick: Pick, row: dict[str, Any], picture: Future[Picture]) -> ShownPage:
    try:
        return ShownPage(pick, row, picture.result())
    except Exception as error:
        return _without_picture(pick, row, error)


def _without_picture(pick: Pick, row: dict[str, Any], error: Exception) -> ShownPage:
    """The page stands without its picture, and says why."""
    return ShownPage(pick, row, None, f"No picture: {as_named(error)}")


def read_row(store: ObjectStore, pick: Pick) -> dict[str, Any]:
    """The page's row of `PAGES`; of the part only the row groups that can hold it are decoded.

    Raises:
        PagemillError: the part is not there, or does not hold the page.
    """
    wanted = (pc.field("doc_id") == pick.doc_id) & (pc.field("page_index") == pick.page_index)
    try:
        table = pq.read_table(io.BytesIO(store.get(pick.part)), filters=wanted & (pc.field("attempt") == pick.attempt))
    except FileNotFoundError:
        raise PagemillError(f"{pick.part} is not there") from None
    if table.num_rows == 0:
        raise PagemillError(f"{pick.part} does not hold it")
    row: dict[str, Any] = dict.fromkeys(PAGES.names) | table.slice(0, 1).to_pylist()[0]
    row["blocks"] = [dict.fromkeys(_BLOCK_FIELDS) | block for block in row["blocks"] or []]  # an older part has fewer fields
    return row


def picture_of(pixels: Pixels) -> Picture:
    """
    Args:
        pixels: (height, width, 3) uint8 RGB.
    """
    from PIL import Image

    whole = Image.fromarray(pixels)
    whole.thumbnail((_WIDTH, _HEIGHT), Image.Resampling.HAMMING, reducing_gap=3.0)  # half of the time that LANCZOS takes
    page = _webp(whole, _QUALITY)
    whole.thumbnail((_THUMB_WIDTH, _THUMB_HEIGHT), Image.Resampling.BOX)
    return Picture(page, _webp(whole, 50))


def _webp(image: Any, quality: int) -> str:
    sink = io.BytesIO()
    image.save(sink, "WEBP", quality=quality, method=_EFFORT)
    return f"data:image/webp;base64,{base64.b64encode(sink.getvalue()).decode('ascii')}"
