"""Probing: new objects are fetched, hashed and opened, several at once, in isolation.

Invariant: it raises for no input; every candidate that goes in comes out once, with a document or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pipelines.config import Config
from pipelines.errors import PagemillError
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.schema import Probe
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate
from pipelines.source.manifest import Secret, opening

_AHEAD = 4  # per worker: candidates in hand
_PATIENCE_S = 0.5  # opening takes milliseconds, a further child 0.25 s of CPU: it starts where documents keep the others busy


@dataclass(slots=True, frozen=True)
class ProbeError:
    code: str
    message: str
    transient: bool


@dataclass(slots=True, frozen=True)
class Probed:
    candidate: Candidate
    doc_id: str | None  # None: its bytes could not be had
    probe: Probe | None  # None: it could not be opened
    error: ProbeError | None


class Prober:
    """
    Args:
        known: what opening a document told before, so that a copy is not opened again.
        secrets: the run's table, see `manifest.Given`.
    """

    def __init__(
        self, config: Config, cache: DocumentCache, known: Callable[[str], Probe | None] = lambda _: None,
        secrets: Sequence[Secret] = (),
    ) -> None:  # fmt: skip
        self._config = config
        self._cache = cache
        self._known = known
        self._secrets = secrets
        self._rasterizers: list[IsolatedRasterizer] = []
        self._idle: SimpleQueue[IsolatedRasterizer] = SimpleQueue()
        self._idle.put(self._another())
        self._pool = ThreadPoolExecutor(config.source.probe_workers, thread_name_prefix="probe")

    def probe_all(self, candidates: Iterator[Candidate]) -> Iterator[Probed]:
        """Results as they are ready; at most a few candidates a worker are in hand."""
        running: set[Future[Probed]] = set()
        for candidate in candidates:
            running.add(self._pool.submit(self.probe, candidate))
            if len(running) >= _AHEAD * self._config.source.probe_workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
            else:
                done = {future for future in running if future.done()}
                running -= done
            yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)

    def probe(self, candidate: Candidate) -> Probed:
        doc_id = None
        link, passwords = opening(candidate.uri, candidate.secret, self._secrets, self._config.source.passwords)
        try:
            found = self._cache.fetch(link, self._config.source.storage_options)
            doc_id = found.doc_id
            probe = self._known(doc_id)
            if probe is None:
                source = self._config.source
                with self._cache.use(doc_id, link, source.storage_options) as path, self._rasterizer() as rasterizer:
                    probe = rasterizer.probe(str(path), passwords, source.probe_deadline_s)
            return Probed(candidate, doc_id, probe, None)
        except PagemillError as error:
            return Probed(candidate, doc_id, None, ProbeError(error.code, str(error), error.transient))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for rasterizer in self._rasterizers:
            rasterizer.close()

    @contextmanager
    def _rasterizer(self) -> Iterator[IsolatedRasterizer]:
        """One that nobody else uses: another one where none becomes free soon."""
        try:
            free = self._idle.get(timeout=_PATIENCE_S)
        except Empty:
            free = self._another()
        try:
            yield free
        finally:
            self._idle.put(free)

    def _another(self) -> IsolatedRasterizer:
        raster = self._config.raster
        made = IsolatedRasterizer(raster.engine, raster.deadline_s, raster.memory_mib)
        self._rasterizers.append(made)
        return made
