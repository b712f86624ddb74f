"""Canaries: a few known pages that ride along with a run, through the same engines, so that a drift of what they say is seen
before anybody uses what the run read.

Invariant: a canary never becomes part of the archive: its spans have revision 0, which no record of the ledger names, so its rows
are orphans to every reader. Until the canaries are back and agree with their baseline, the run is not published.

    OUTPUT/canary/<doc_id>            the documents, so that every node can fetch them
    OUTPUT/runs/<run_id>/canary.json  what they said in that run; the baseline is such a file of an earlier one
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import ConfigError
from pipelines.observe.drift import Drift, Key, PageReading, drift
from pipelines.schema import CANARY_REVISION, Span, SpanReceipt
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate, Verdict
from pipelines.source.listing import discover
from pipelines.source.probing import Prober
from pipelines.stages import Site
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.publishing import baseline_of

SHIPPED = "shipped"
_MOST_PAGES = 50  # each night pays for them
_COLUMNS = ["doc_id", "page_index", "attempt", "state", "error_code", "blocks"]


class Canaries:
    """The canaries of one run. `spans` is called by the planning thread, `take` by the one that reads the graph.

    Args:
        anyway: ride also where the run has nothing else to read, and become the baseline: `pagemill canary --record`.
    """

    def __init__(self, site: Site, store: ObjectStore, ledger: Ledger, anyway: bool = False) -> None:
        self._site, self._store, self.anyway = site, store, anyway
        self._baseline = baseline_of(ledger.paths)  # doc_id -> run
        self._names: dict[str, str] = {}  # doc_id -> file name
        self._waiting: set[Key] = set()
        self._receipts: list[SpanReceipt] = []
        self._without: list[str] = []  # what the canaries could not be held against
        self.rode = False

    def spans(self) -> list[Span]:
        """The documents, opened and stored where every node finds them.

        Raises:
            ConfigError: `canary.documents` has none, too many, or one that cannot be opened.
        """
        config = self._site.config
        cache = DocumentCache.of(config.source)
        prober = Prober(config, cache)
        try:
            spans = [span for uri in self._uris() for span in self._opened(prober, cache, uri)]
        finally:
            prober.close()
        self._waiting = {(span.doc_id, page) for span in spans for page in span.pages}
        if not 0 < len(self._waiting) <= _MOST_PAGES:
            raise ConfigError(
                f"canary.documents={config.canary.documents}: {len(self._waiting)} pages, 1 to {_MOST_PAGES} are meant. "
                "Try: --set canary.documents=shipped (or none)"
            )
        self.rode = True
        return spans

    def take(self, receipts: Iterable[SpanReceipt]) -> list[SpanReceipt]:
        """Keeps the canaries' receipts; returns the others."""
        others = []
        for receipt in receipts:
            if receipt.revision != CANARY_REVISION:
                others.append(receipt)
                continue
            self._receipts.append(receipt)
            self._waiting -= {(receipt.doc_id, page) for page in receipt.pages}
        return others

    @property
    def back(self) -> bool:
        """Whether all that rode have come back."""
        return self.rode and not self._waiting

    def verdict(self) -> tuple[bool, dict[str, object]]:
        """Whether the run may be published, and the words and figures for its record. Writes canary.json.

        Raises:
            StoreUnavailable
        """
        now = [*self._readings(), *(self._missing(key) for key in sorted(self._waiting))]
        key = f"runs/{self._site.run_id}/canary.json"
        self._store.put(key, json.dumps({"schema": "1.0", "pages": [page.as_dict() for page in now]}, indent=1).encode())
        found = drift(self._before(), now, self._site.config.canary)
        found.words += self._without
        found.words += [f"page {page + 1} of {self._names[doc_id]} did not come back" for doc_id, page in sorted(self._waiting)]
        published = self.anyway or not found.words
        return published, {**found.as_dict(), "baseline": self._next_baseline(found, now)}

    def _next_baseline(self, found: Drift, now: Sequence[PageReading]) -> dict[str, str]:
        """Documents that have none yet get this run's reading; the others keep theirs, unless they are recorded anew."""
        whole = {page.doc_id for page in now} - {page.doc_id for page in now if page.state == "failed"}
        new = whole if self.anyway else whole - set(self._baseline)
        return self._baseline | dict.fromkeys(sorted(new), self._site.run_id)

    def _before(self) -> dict[Key, PageReading]:
        found: dict[Key, PageReading] = {}
        for run in sorted(set(self._baseline.values())):
            key = f"runs/{run}/canary.json"
            try:
                recorded = json.loads(self._store.get(key))["pages"]
            except FileNotFoundError:
                self._without.append(f"the baseline {key} is gone. Try: pagemill canary OUTPUT --record")
                continue
            pages = [PageReading(**page) for page in recorded]
            found.update({page.key: page for page in pages if self._baseline.get(page.doc_id) == run})
        return found

    def _readings(self) -> list[PageReading]:
        found: dict[Key, PageReading] = {}
        for receipt in self._receipts:
            data = io.BytesIO(self._store.get(receipt.part))
            rows = pq.read_table(data, columns=_COLUMNS, filters=pc.field("attempt") == receipt.attempt).to_pylist()
            for row in rows:
                page = PageReading.of_row(row, self._names[row["doc_id"]])
                found[page.key] = page
        return [found[key] for key in sorted(found)]

    def _missing(self, key: Key) -> PageReading:
        return PageReading(*key, self._names[key[0]], "failed", "", 0, 0)

    def _uris(self) -> list[str]:
        wanted = self._site.config.canary.documents
        place = str(resources.files("conf").joinpath("canary")) if wanted == SHIPPED else wanted
        return sorted(info.uri for info in discover(place, self._site.config.source.storage_options, Counter()))

    def _opened(self, prober: Prober, cache: DocumentCache, uri: str) -> list[Span]:
        config = self._site.config
        probed = prober.probe(Candidate(Verdict.NEW, uri, None, None, None, None, None))
        if probed.doc_id is None or probed.probe is None:
            raise ConfigError(f"canary.documents: {uri}: {probed.error.message if probed.error else 'it cannot be opened'}")
        doc_id = probed.doc_id
        if doc_id in self._names:
            return []
        self._names[doc_id] = uri.rpartition("/")[2]
        key = f"canary/{doc_id}"
        if not self._store.exists(key):
            with cache.use(doc_id, uri, config.source.storage_options) as path:
                self._store.put(key, path.read_bytes())
        pages = tuple(range(probed.probe.page_count))
        where = self._store.child_uri(key)
        whole = Span(doc_id, CANARY_REVISION, pages, where, len(pages), probed.probe.format, flags=probed.probe.flags)
        return whole.cut(config.source.span_pages)
