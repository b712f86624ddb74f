"""Discovery: the source's listing, compared with the ledger, probed and planned, as one stream of `Planned`.

Invariant: a listing that breaks off raises and marks nothing vanished; only a complete listing of a directory does.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from pipelines.config import Config
from pipelines.errors import ConfigError, PagemillError
from pipelines.fingerprint import prints_of
from pipelines.observe.summary import Summary
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import ChangeDetector, Verdict
from pipelines.source.listing import (
    absolute,
    batched,
    check_name,
    discover,
    is_remote,
    local_path,
    look,
    opened_manifest,
    prefix_of,
    uri_of,
)
from pipelines.source.manifest import Given, Secret, is_manifest, manifest_rows, survey
from pipelines.source.pattern import is_pattern
from pipelines.source.planner import Planned, Planner
from pipelines.source.probing import Prober
from pipelines.source.remote import RemoteSource
from pipelines.source.web import is_web
from pipelines.stages import Site
from pipelines.store.ledger import Ledger
from pipelines.store.records import record
from pipelines.store.state import LedgerState


def given_by(source: str, config: Config) -> Given:
    """What the rows of a manifest say, where the source is one.

    Raises:
        BadManifest, SourceUnreachable; ConfigError: an empty name.
    """
    check_name(source)
    if not _is_file_of_names(source, config):
        return Given()
    with opened_manifest(source, config.source.storage_options, config.source.web) as copy:
        return survey(source, copy, config)


def openers(manifest: str | None, config: Config, uris: Collection[str] | None = None) -> dict[str, Secret]:
    """What opens these objects (None: all), by URI, as the rows of a manifest say; the first row counts.

    Raises:
        BadManifest, SourceUnreachable; ConfigError: it is none.
    """
    if manifest is None:
        return {}
    if not is_manifest(manifest):
        raise ConfigError(f"--manifest {manifest}: a manifest ends in .parquet, .csv, .txt or .list")
    found: dict[str, Secret] = {}
    place = manifest if is_remote(manifest) else os.path.abspath(local_path(manifest))
    with opened_manifest(manifest, config.source.storage_options, config.source.web) as copy:
        for row in manifest_rows(place, copy):
            uri = uri_of(absolute(row.link, place.rpartition("/")[0]))
            if row.secret is not None and (uris is None or uri in uris):
                found.setdefault(uri, row.secret)
    return found


def _is_file_of_names(source: str, config: Config) -> bool:
    if is_web(source):
        return True
    if not is_manifest(source):
        return False
    if not is_remote(source):
        return os.path.isfile(local_path(source))
    remote = RemoteSource(source, config.source.storage_options)
    return not is_pattern(remote.path) and "/" in remote.path and remote.info(remote.path) is not None


class Discovery:
    """What one run finds in its source."""

    def __init__(
        self, site: Site, source: str, ledger: Ledger, summary: Summary, count_left_s: float = 0, given: Given | None = None
    ) -> None:
        self._site, self._source, self._ledger, self._summary = site, source, ledger, summary
        self._count_left_s = count_left_s
        self._given = given or Given()

    def __call__(self) -> Iterator[Planned]:
        """
        Raises:
            SourceUnreachable: what was planned before stays planned.
        """
        with self._planning() as (changes, planner, prober, requests):
            config, skipped = self._site.config.source, self._summary.skipped
            rows = self._given.rows_of(self._site.config)
            found = discover(self._source, config.storage_options, skipped, requests, config.web, rows)
            listing = batched(self._ledger.lane.only(found, skipped))
            try:
                yield from planner.plan(listing, prober.probe_all)
                self._summary.listing_done = True
                below = prefix_of(self._source)
                if below is not None:
                    for known in changes.vanished(below):
                        yield self._vanished(known, "vanished")
                yield from planner.stranded(below)
            except GeneratorExit:  # the run drains
                self._count_left(changes, listing)
                raise
            finally:
                self._summary.listed.update({str(verdict): count for verdict, count in changes.counts.items() if count})
                self._summary.left_objects = changes.undone - planner.reached
                self._say_repeated(planner.repeated)

    def _say_repeated(self, rows: int) -> None:
        if rows:
            self._summary.listed["repeated"] += rows
            self._summary.message = self._summary.message or (
                f"{rows} rows ask for other pages or options of a document that an earlier row named: other pages are read when "
                "the same command runs again, other options by a reprocess"
            )

    def look_again(self, uris: Sequence[str]) -> Iterator[Planned]:
        """What these hold now, whose planned bytes were gone when they were to be read: other bytes, or nothing."""
        with self._planning() as (changes, planner, prober, _):
            source = self._site.config.source
            found = look(uris, source.storage_options, source.web)
            there = batched(info for info in found.values() if info is not None)
            for planned in planner.plan(there, prober.probe_all, only=Verdict.CHANGED):
                self._summary.listed["changed_meanwhile"] += 1
                yield planned
            below = prefix_of(self._source)
            gone = [uri for uri, info in found.items() if info is None and below is not None and uri.startswith(below)]
            for known in changes.known(gone):
                yield self._vanished(known, "vanished_meanwhile")

    @contextmanager
    def _planning(self) -> Iterator[tuple[ChangeDetector, Planner, Prober, Counter[str]]]:
        """A comparison with the ledger as it is now, and a planner and a prober over it; the last: requests to be counted."""
        config = self._site.config
        with tempfile.TemporaryDirectory(prefix="pagemill-plan-") as scratch:
            state = LedgerState(self._ledger.paths, Path(scratch))
            changes = ChangeDetector(state)
            cache = DocumentCache.of(config.source)
            prober = Prober(config, cache, changes.opened, self._site.secrets)
            site = self._site
            prints = prints_of(config, site.weights)
            planner = Planner(state, changes, site.run_id, site.fingerprint, config.source.span_pages, prints)
            requests: Counter[str] = Counter()
            try:
                yield changes, planner, prober, requests
            finally:
                prober.close()
                self._summary.asked_source(requests + cache.requests)
                state.close()

    def _count_left(self, changes: ChangeDetector, listing: Iterator[pa.Table]) -> None:
        """Goes on with the listing, without opening anything, so that the run can say what it leaves; for a while."""
        until = time.monotonic() + self._count_left_s
        with suppress(PagemillError):  # what it then says is "as far as the listing went"
            while time.monotonic() < until:
                batch = next(listing, None)
                if batch is None:
                    self._summary.listing_done = True
                    return
                changes.count(batch)

    def _vanished(self, known: Mapping[str, object], verdict: str) -> Planned:
        self._summary.listed[verdict] += 1
        return Planned([record("source", **{**known, "presence": "vanished", "run_id": self._site.run_id})])
