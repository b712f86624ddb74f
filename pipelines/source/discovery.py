"""Discovery: the source's listing, compared with the ledger, probed and planned, as one stream of `Planned`.

Invariant: a listing that breaks off raises and marks nothing vanished; only a complete listing of a directory does.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipelines.observe.summary import Summary
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import ChangeDetector
from pipelines.source.listing import batched, discover, prefix_of
from pipelines.source.planner import Planned, Planner
from pipelines.source.probing import Prober
from pipelines.stages import Site
from pipelines.store.ledger import Ledger
from pipelines.store.records import record
from pipelines.store.state import LedgerState


class Discovery:
    """What one run finds in its source."""

    def __init__(self, site: Site, source: str, ledger: Ledger, summary: Summary) -> None:
        self._site, self._source, self._ledger, self._summary = site, source, ledger, summary

    def plan(self) -> Iterator[Planned]:
        """
        Raises:
            SourceUnreachable: what was planned before stays planned.
        """
        config = self._site.config
        with tempfile.TemporaryDirectory(prefix="pagemill-plan-") as scratch:
            state = LedgerState([file.path for file in self._ledger.files], Path(scratch))
            changes = ChangeDetector(state)
            cache = DocumentCache(Path(config.source.cache_dir) if config.source.cache_dir else None, config.source.cache_gib)
            prober = Prober(config, cache, changes.opened)
            planner = Planner(state, changes, self._site.run_id, self._site.fingerprint, config.source.span_pages)
            requests: Counter[str] = Counter()
            listing = batched(discover(self._source, config.source.storage_options, self._summary.skipped, requests))
            try:
                yield from planner.plan(listing, prober.probe_all)
                below = prefix_of(self._source)
                if below is not None:
                    yield from self._vanished(changes, below)
                yield from planner.stranded(below)
            finally:
                self._summary.listed.update({str(verdict): count for verdict, count in changes.counts.items() if count})
                prober.close()
                self._summary.asked_source(requests + cache.requests)
                state.close()

    def _vanished(self, changes: ChangeDetector, below: str) -> Iterator[Planned]:
        for known in changes.vanished(below):
            self._summary.listed["vanished"] += 1
            yield Planned([record("source", **{**known, "presence": "vanished", "run_id": self._site.run_id})])
