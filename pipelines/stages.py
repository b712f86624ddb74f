"""The stages between plan and receipt, made from configuration: plain objects, callable in a test, no Ray.

Invariant: `Chain.run` returns for every span that came in either its receipt or a `Lost` with the reason; it raises for
nothing that an input or the store did. A worker holds one chain for its whole life, so models load once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipelines.config import Config
from pipelines.errors import EngineGone, PagemillError, as_named
from pipelines.observe.cards import CardUsage
from pipelines.observe.log import EventLog, configure
from pipelines.observe.quality import Quality, certainty, quality_of
from pipelines.recognize.engines import Identity, form_of, is_vision, load_vision
from pipelines.schema import CANARY_REVISION, PageError, PageWork, RasterPage, Span, SpanReceipt, SpanWork
from pipelines.source.cache import DocumentCache
from pipelines.source.manifest import Secret, opening
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import PartWriter

log = EventLog()

Works = list[SpanWork]
FETCH = "fetch"  # the stage that an error names when a document's bytes could not be had


def stage_names(config: Config) -> tuple[str, ...]:
    """In the order in which data passes through them."""
    if is_vision(config.recognize):
        return ("rasterize", "layout", "crop", "recognize", "finish", "assemble", "write")
    return ("rasterize", "layout", "recognize", "assemble", "write")


@dataclass(slots=True, frozen=True)
class Site:
    """All that a worker needs to know; it travels to the worker, so it holds values only."""

    config: Config
    output: str
    run_id: str
    fingerprint: str
    reader: Identity
    layout_fingerprint: str = ""  # of what comes before reading
    weights: dict[str, str] = field(default_factory=dict)  # of the engines, by their role
    secrets: tuple[Secret, ...] = field(default=(), repr=False)  # what opens documents of a manifest; goes nowhere else


@dataclass(slots=True, frozen=True)
class Lost:
    """A span without a receipt: none of its pages counts as tried."""

    span: Span
    error: PageError


@dataclass(slots=True)
class Outcome:
    """What one call of a chain did."""

    receipts: list[SpanReceipt] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    idle: Counter[str] = field(default_factory=Counter)  # by pool of actors: seconds between two calls
    requests: Counter[str] = field(default_factory=Counter)
    cards: dict[str, CardUsage] = field(default_factory=dict)  # by node and card: samples since the last call
    slowest: tuple[float, str, int, str] | None = None  # (seconds, doc_id, page, uri) of the slowest page
    doubtful: tuple[float, str, int, str] | None = None  # (certainty 0..1, ...) of the page read least surely
    document_seconds: Counter[str] = field(default_factory=Counter)  # by doc_id, over all stages
    quality: Quality = field(default_factory=Quality)


def begin(spans: Sequence[Span]) -> Works:
    """Spans as work that has not begun, each with an attempt of its own."""
    return [
        SpanWork(
            span,
            secrets.token_hex(8),
            [PageWork(span.doc_id, page, tries=span.tries, flags=list(span.flags)) for page in span.pages],
        )
        for span in spans
    ]


class Chain:
    """Some consecutive stages in one process."""

    def __init__(self, names: Sequence[str], site: Site) -> None:
        self._store = ObjectStore(
            site.output, site.config.store.storage_options, site.config.store.retries, site.config.store.timeout_s
        )
        self._counted: Counter[str] = Counter()
        configure(site.config.observe.log_level, site.run_id)  # in an actor its lines go into Ray's files of that worker
        source = site.config.source
        self._cache = DocumentCache.of(source)
        makers: dict[str, Callable[[Site], Callable[[Works], Works]]] = {
            "rasterize": lambda site: _rasterize(site, self._cache, self._store),
            "layout": _layout,
            "crop": _crop,
            "recognize": lambda site: _recognize(site, self._cache),
            "finish": _finish,
            "assemble": _assemble,
        }
        self._stages = [(name, makers[name](site)) for name in names if name != "write"]
        writer = PartWriter(self._store, site.run_id, site.fingerprint, site.layout_fingerprint)
        self._writer = writer if "write" in names else None

    def through(self, works: Works, seconds: dict[str, float]) -> Works:
        """The stages before `write`."""
        for name, stage in self._stages:
            started = time.perf_counter()
            works = stage(works)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        return works

    async def ask(self, works: Works) -> Works:
        """The stage `recognize` of a vision-language model, alone in its chain; many calls at once share the engine.

        Raises:
            EngineGone
        """
        ((_, stage),) = self._stages
        assert isinstance(stage, _Ask)
        return await stage.ask(works)

    def close(self) -> None:
        """Ends what runs in this process (an engine)."""
        for _, stage in self._stages:
            if isinstance(stage, _Ask):
                stage.close()

    def run(self, works: Works) -> Outcome:
        """All stages, `write` among them. Never raises for what an input or the store did.

        Raises:
            EngineGone
        """
        assert self._writer is not None
        outcome = Outcome()
        try:
            works, outcome.lost = _had(self.through(works, outcome.seconds))
            if not works:
                return outcome
            started = time.perf_counter()
            outcome.receipts = self._writer.write(works)
            _observe(outcome, works)
            outcome.seconds["write"] = time.perf_counter() - started
            spans = [f"{work.span.doc_id[:12]}:{work.span.pages[0] + 1}-{work.span.pages[-1] + 1}" for work in works]
            log.debug("block_read", spans=",".join(spans), part=outcome.receipts[0].part, **outcome.seconds)
        except EngineGone:
            raise  # this process cannot read any more
        except Exception as error:  # the driver runs these spans again, apart, and names the error if it stays
            log.warning("block_lost", spans=len(works), error=error)
            outcome.lost += [Lost(work.span, named_error(error)) for work in works]
        finally:
            outcome.requests += self.requests()
        return outcome

    def requests(self) -> Counter[str]:
        """What was asked of the stores since the last call; of sources as `source_<kind>`."""
        counts = self._store.counts + Counter({f"source_{kind}": count for kind, count in self._cache.requests.items()})
        new, self._counted = counts - self._counted, counts
        return new


def _observe(outcome: Outcome, works: Works) -> None:
    """What the report needs of these pages, while they are at hand."""
    pages = [(page, work.span.uri) for work in works for page in work.pages]
    spent = [(sum(page.seconds.values()), page.doc_id, page.page_index, uri) for page, uri in pages]
    for seconds, doc_id, _, _ in spent:
        outcome.document_seconds[doc_id] += seconds  # type: ignore[assignment]
    outcome.slowest = max(spent, default=None)
    sure = [(found, page.doc_id, page.page_index, uri) for page, uri in pages if (found := certainty(page)) is not None]
    outcome.doubtful = min(sure, default=None)
    outcome.quality = quality_of(works)


def _had(works: Works) -> tuple[Works, list[Lost]]:
    """Works whose document's bytes could be had, and the others: the driver knows whether another URI has them."""
    there, lost = [], []
    for work in works:
        error = work.pages[0].error
        if error is not None and error.stage == FETCH:
            lost.append(Lost(work.span, error))
        else:
            there.append(work)
    return there, lost


def failed_pages(span: Span, error: PageError) -> SpanWork:
    """A span whose every page ends with `error` without having been tried."""
    (work,) = begin([span])
    for page in work.pages:
        page.error = error
    return work


def named_error(error: Exception) -> PageError:
    named = as_named(error)
    detail = "" if isinstance(error, PagemillError) else "\n" + traceback.format_exc(limit=-4)
    return PageError(named.code, "write", f"{named}{detail}")


def _rasterize(site: Site, cache: DocumentCache, store: ObjectStore | None = None) -> Callable[[Works], Works]:
    from pipelines.raster.budget import DocumentBudget
    from pipelines.raster.rasterize import Rasterize
    from pipelines.recognize.splice import KeptPages

    config = site.config
    engine = "pymupdf-layout" if config.layout.engine == "pymupdf" else config.raster.engine
    stage = Rasterize(config.raster, engine, images_as_stored=config.paddleocr_vl.strict_parity)
    kept = KeptPages(store, site.layout_fingerprint) if store is not None and is_vision(config.recognize) else None

    def one(work: SpanWork) -> SpanWork:
        span = work.span
        if kept is not None:
            kept.attach(work)
        link, passwords = opening(span.uri, span.secret, site.secrets, config.source.passwords)
        try:
            canary = span.revision == CANARY_REVISION  # it lies below the output
            options = config.store.storage_options if canary else config.source.storage_options
            with cache.use(span.doc_id, link, options) as path:
                # what somebody asked to read again has an allowance of its own; retries by later runs have not
                reading = span.revision if span.tries == 1 else 1
                budget = DocumentBudget(
                    cache.budget_path(span.doc_id, reading), config.raster.document_deadlines * config.raster.deadline_s
                )
                return stage.rasterize(work, path, budget, passwords)
        except PagemillError as error:
            for page in work.pages:
                page.error = PageError(error.code, FETCH, str(error))
            return work

    return lambda works: [one(work) for work in works]


def _layout(site: Site) -> Callable[[Works], Works]:
    from pipelines.layout.detect import DetectLayout

    return DetectLayout(site.config).detect


def _crop(site: Site) -> Callable[[Works], Works]:
    from pipelines.recognize.vision import CropPages

    stage = CropPages(site.config, form_of(site.config, site.reader))
    return lambda works: [stage.crop(work) for work in works]


def _recognize(site: Site, cache: DocumentCache) -> Callable[[Works], Works]:
    if is_vision(site.config.recognize):
        return _Ask(site, cache)
    from pipelines.recognize.read import Recognize

    stage = Recognize(site.config.recognize)
    return lambda works: [stage.recognize(work) for work in works]


class _Ask:
    """Stage `recognize` of a vision-language model: awaited by an asynchronous pool, called where there is no loop."""

    def __init__(self, site: Site, cache: DocumentCache) -> None:
        from pipelines.recognize.vision import ReadCrops

        engine = load_vision(site.config)
        self._stage = ReadCrops(site.config, engine, form_of(site.config, site.reader), _redraw(site, cache))
        self._runner: asyncio.Runner | None = None

    async def ask(self, works: Works) -> Works:
        return list(await asyncio.gather(*(self._stage.recognize(work) for work in works)))

    def __call__(self, works: Works) -> Works:
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(self.ask(works))

    def close(self) -> None:
        self._stage.close()
        if self._runner is not None:
            self._runner.close()


_SHARPER = 2.0  # times the configured resolution, for a crop whose answer looped


def _redraw(site: Site, cache: DocumentCache) -> Callable[[Span, int], Awaitable[RasterPage | None]]:
    """Draws one page again at a higher resolution; its child process starts when the first is wanted."""
    raster = site.config.raster
    sharper = {"dpi": min(1200.0, raster.dpi * _SHARPER), "max_megapixels": raster.max_megapixels * _SHARPER**2}
    finer = replace(site, config=site.config.model_copy(update={"raster": raster.model_copy(update=sharper)}))
    one_at_a_time = ThreadPoolExecutor(1, "redraw")
    made: list[Callable[[Works], Works]] = []

    def work(span: Span, page_index: int) -> RasterPage | None:
        if not made:
            made.append(_rasterize(finer, cache))
        (drawn,) = made[0](begin([replace(span, pages=(page_index,))]))
        return drawn.pages[0].raster

    return lambda span, page_index: asyncio.get_running_loop().run_in_executor(one_at_a_time, work, span, page_index)


def _finish(site: Site) -> Callable[[Works], Works]:
    from pipelines.recognize.finishing import FinishPages

    stage = FinishPages(site.config, site.reader.name, site.reader.weights[:16], site.fingerprint)
    return lambda works: [stage.finish(work) for work in works]


def _assemble(site: Site) -> Callable[[Works], Works]:
    from pipelines.assemble.page import Assemble

    stage = Assemble(site.config.assemble)
    return lambda works: [stage.assemble(work) for work in works]
