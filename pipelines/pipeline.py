"""The whole run on one screen, from what a source holds to a ledger that says it is read.

Invariant: every page that was planned ends this run with a record in the ledger or is counted as pending; whatever ends
the run (a dead graph, a signal, a foreign claim) leaves nothing that the next run cannot see in the ledger.

    discover, probe, plan   one thread of the driver, ahead of reading by a bounded supply          source/
    rasterize ... write     actors of a Ray Data graph, or this process when `inline`               stages.py, cluster/
    commit                  one thread of the driver, at most once a second                         store/commit.py
    finalize                threads of the driver, when a revision's last page is committed         assemble/finalize.py
"""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pipelines.assemble.finalize import Finalizer
from pipelines.books import Books
from pipelines.canary import Canaries
from pipelines.cluster.aside import Aside
from pipelines.cluster.feed import Feed
from pipelines.cluster.interpreter import check_interpreter
from pipelines.cluster.pools import Pool, alone, blocks_ahead, plan_pools, private_store_mib, shares
from pipelines.errors import ClusterLost, ConfigError, EngineUnavailable, StoreUnavailable, by_code
from pipelines.observe.log import EventLog
from pipelines.observe.summary import MEMORY_HINT, Summary
from pipelines.recognize.engines import wait_until_ready
from pipelines.schema import CANARY_REVISION, PageError, Span, SpanReceipt
from pipelines.source.planner import Planned
from pipelines.stages import FETCH, Chain, Lost, Outcome, Site, begin, failed_pages, stage_names
from pipelines.store.commit import Committer
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import PartWriter
from pipelines.store.records import Record, record
from pipelines.store.state import copies
from pipelines.supply import Supply

if TYPE_CHECKING:
    from pipelines.cluster.cards import Cards

log = EventLog()

_MOST_BARREN = 5  # a poison page alone accounts for two: the graph that it ended, and the one in which it ran apart
_ROOM_S = 5.0  # between two tries of a page for which Ray had no room
_MOST_UNSTORED = 2  # blocks a worker, in a row, that the store did not take after all retries: reading on would be for nothing


Plan = Callable[[], Iterator[Planned]]  # what there is to read, as it is found


@runtime_checkable
class LooksAgain(Protocol):
    """A plan over a source that can change while it is read."""

    def look_again(self, uris: Sequence[str]) -> Iterator[Planned]:
        """What these hold now, whose planned bytes were gone when they were to be read."""
        ...


class Run:
    """One execution of a job over what a plan brings and one output that this driver has claimed."""

    def __init__(
        self, site: Site, plan: Plan, store: ObjectStore, ledger: Ledger, summary: Summary, canaries: Canaries | None = None
    ) -> None:
        self._site, self._planned, self._store, self._ledger, self._summary = site, plan, store, ledger, summary
        self._supply = Supply(site.config.block_pages)
        self._error: BaseException | None = None
        self._over = False  # the error is one with which this driver cannot go on
        self._committer = Committer(ledger, site.config.store.commit_every_s, self._stop_with)
        self._books = Books(self._committer, Finalizer(store, site.run_id), summary)
        self._writer = PartWriter(store, site.run_id, site.fingerprint, site.layout_fingerprint)
        self._apart = Supply(1)  # what runs page by page after a graph died
        self._canaries, self._judged = canaries, False
        self._lost: list[Lost] = []
        self._gone: set[str] = set()  # URIs without the bytes that were planned
        self._feed: Feed | None = None  # of the graph that runs
        self._cards: Cards | None = None  # of the cluster, where there is one
        self._ended_for_memory: Callable[[], int] = lambda: 0  # workers, so far
        self._starts: Callable[[], Callable[[Pool, int], None]] = lambda: lambda *_: None  # who hears which actors are up
        self._draining = False
        self._barren = 0  # graphs in a row that died without any outcome
        self._died_of = ""  # what the last of them said
        self._died_full = False  # the last graph died because Ray had no room
        self._unstored = 0  # outcomes in a row that the store did not take

    def execute(self, inline: bool = False) -> None:
        """Reads all that the source has and the ledger lacks; returns early, with everything committed, after `drain`.

        Raises:
            SourceUnreachable, Fenced, StoreUnavailable, DamagedOutput, EngineUnavailable
        """
        planning = self._begin_planning(self._planned)
        try:
            if self._supply.wait():
                wait_until_ready(self._site.config)
                self._read_inline() if inline else self._read_through_ray()
            planning.join()
            self._raise()
            self._books.settle()
            if self._canaries is not None and self._canaries.rode and not self._judged:  # the run was drained before
                self._judge(self._canaries)
        finally:
            self._supply.stop()
            self._committer.close()
            self._books.close()
            self._summary.pending = self._books.pending()

    def drain(self) -> None:
        """No new pages; what is under way finishes and is committed. Safe in a signal handler."""
        self._draining = True
        self._supply.stop()
        self._apart.stop()

    @property
    def drained(self) -> bool:
        return self._draining

    def under_way_s(self) -> float | None:
        """How long what is under way may take, by what pages lately took; None: nothing has come back yet."""
        feed = self._feed
        return None if feed is None else feed.took_s()

    # -- discover, probe, plan -----------------------------------------------------------------------------------------

    def _begin_planning(self, plan: Plan) -> threading.Thread:
        planning = threading.Thread(target=self._plan, args=(plan, self._supply), name="plan", daemon=True)
        planning.start()
        return planning

    def _plan(self, plan: Plan, supply: Supply) -> None:
        try:
            if self._canaries is not None and self._canaries.anyway:
                self._ride(self._canaries, supply)
            found = plan()
            for planned in found:
                self._books.opened(planned)
                if planned.gone is not None:
                    self._give_up([Lost(span, planned.gone) for span in planned.spans])
                    continue
                if planned.spans and self._canaries is not None and not self._canaries.rode:
                    self._ride(self._canaries, supply)
                if not supply.put(planned.spans):
                    if isinstance(found, Generator):
                        found.close()  # it may still count what it leaves
                    return
            self._summary.planning_done = True
        except BaseException as error:  # raised by execute(), after what was planned is read
            self._error = self._error or error
        finally:
            supply.close()

    def _ride(self, canaries: Canaries, supply: Supply) -> None:
        """The canaries go first, so that most of a run is read after they were judged. Until then it is not published."""
        spans = canaries.spans()
        self._summary.published = False
        self._committer.add([self._run_record()])
        supply.put(spans)

    def _look_again(self) -> threading.Thread | None:
        """Plans what the URIs hold whose planned bytes were gone; its thread, or None where there is nothing of the kind."""
        uris, self._gone = sorted(self._gone), set()
        plan: object = self._planned
        if not uris or not isinstance(plan, LooksAgain):
            return None
        self._books.settle()  # the ledger then says how their old documents ended
        self._supply = Supply(self._site.config.block_pages)
        if self._draining or self._error is not None:  # asked after a drain has a supply that it can stop
            return None
        return self._begin_planning(lambda: plan.look_again(uris))

    # -- rasterize to write --------------------------------------------------------------------------------------------

    def _read_inline(self) -> None:
        chain = Chain(stage_names(self._site.config), self._site)
        try:
            self._read_supply_inline(chain)
            if planning := self._look_again():
                self._read_supply_inline(chain)
                planning.join()
        finally:
            chain.close()

    def _read_supply_inline(self, chain: Chain) -> None:
        while (taken := self._supply.take(1)) is not None:
            self._received(chain.run(begin(taken[0])))
            self._raise_fatal()
        for span in self._second_chance():
            self._received(chain.run(begin([span])))
        self._give_up(self._lost)

    def _read_through_ray(self) -> None:
        from pipelines.cluster.memory import MemoryWatch, Starts
        from pipelines.cluster.metrics import Exporter
        from pipelines.cluster.session import Session

        config = self._site.config
        if config.layout.python is not None and config.ray.address is None:  # of a cluster it is a path on other machines
            check_interpreter(config.layout.python)
        session = Session(config.ray, private_store_mib(config), config.observe.metrics_port, self._stop_with)
        with session, Exporter(self._summary), MemoryWatch(self._summary) as memory:
            self._ended_for_memory = lambda: next(Aside(lambda: [memory.look()]).items(self._is_over), 0)  # a head may be gone
            self._starts = lambda: Starts(memory, self._summary, self._stop_with).seen
            self._summary.workers = session.workers
            pools = plan_pools(config, session.cpus, session.gpus, session.workers)
            self._cards = session.cards(pools)
            self._read_supply(pools)
            if planning := self._look_again():
                self._read_supply(pools)
                planning.join()

    def _read_supply(self, pools: Sequence[Pool]) -> None:
        suspects: list[Span] = []
        while self._supply.wait():
            self._check_progress()
            feed = self._feed = self._new_feed(blocks_ahead(pools) * self._site.config.block_pages)
            suspects += self._one_graph(feed, self._supply, pools)
        self._raise_fatal()  # the head may be lost between two graphs
        suspects += self._second_chance()
        if suspects and not self.drained:
            self._read_apart(suspects, alone(pools))

    def _one_graph(self, feed: Feed, supply: Supply, pools: Sequence[Pool], retries: int | None = None) -> list[Span]:
        """Runs a graph to its end, or to its death; returns what was fed and did not come back."""
        from pipelines.cluster.graph import GraphDied, run_graph

        feeding = threading.Thread(target=self._move, args=(supply, feed, shares(pools)), name="feed", daemon=True)
        feeding.start()
        self._summary.graphs += 1
        self._barren += 1
        self._died_full = False
        started, held = time.monotonic(), dict[str, float]()
        self._summary.graph_started({pool.name: pool.size for pool in pools}, held)
        try:
            graph = run_graph(
                self._site, feed.folder, pools, held, self._is_over, retries=retries, cards=self._cards, up=self._starts()
            )
            with closing(graph):  # what ends the loop early ends the graph
                for outcome in graph:
                    self._barren = 0
                    self._received(outcome, feed)
                    self._raise_fatal()
        except GraphDied as died:  # its pages are named by feed.outstanding(); they run apart
            self._raise_fatal()
            self._died_of, self._died_full = str(died), died.full
            log.warning("graph_died", graph=self._summary.graphs, cause=died)
        finally:
            feed.abandon() if self._is_over() else feed.end()
            feeding.join()
            self._summary.graph_ended({pool.name: pool.size for pool in pools}, time.monotonic() - started, held)
        return feed.outstanding()

    def _move(self, supply: Supply, feed: Feed, shares: int) -> None:
        """Moves blocks from the supply into one graph's feed, until either ends. The body of a thread."""
        try:
            while (taken := supply.take(max(1, feed.room_blocks()), feed.hungry, shares)) is not None:
                if not feed.publish(taken):
                    supply.give_back(taken)
                    return
            feed.end()
        except BaseException as error:  # the graph would wait for ever for what could not be published
            self._stop_with(error)

    def _read_apart(self, suspects: list[Span], pools: Sequence[Pool]) -> None:
        """Page by page, one at a time: a page that ends its worker here too is `failed`, and only that page."""
        waiting = deque(page for span in suspects for page in span.cut(1))
        while waiting and not self.drained:
            self._check_progress()
            supply = self._apart = Supply(1)
            supply.give_back([[page] for page in waiting])
            supply.close()
            feed, short = self._new_feed(window=1), self._ended_for_memory()
            culprits = self._one_graph(feed, supply, pools, retries=1)
            taken = len(waiting) - supply.left()
            for _ in range(taken):
                waiting.popleft()
            if self._died_full:  # what the graph before held may not be gone yet; `_check_progress` bounds the tries
                waiting.extend(culprits)  # behind the others, which need not wait for a page that never finds room
                time.sleep(_ROOM_S)
                continue
            for span in culprits:
                words = "the page ended its worker each time it was read, alone too"
                if self._ended_for_memory() > short:
                    words += f": Ray ended it because its node was short of memory; {MEMORY_HINT}"
                error = PageError("WORKER_LOST", "read", words)
                self._commit(self._writer.write([failed_pages(span, error)]))
        self._give_up(self._lost)

    def _second_chance(self) -> list[Span]:
        """What was lost, to be run once more; where a URI no longer has the bytes, from another one that has them."""
        lost, self._lost = self._lost, []
        fetched = [entry for entry in lost if entry.error.stage == FETCH]
        again = [entry.span for entry in lost if entry.error.stage != FETCH]
        if fetched:
            self._committer.flush()
            found = copies(self._ledger.files, sorted({entry.span.doc_id for entry in fetched}))
            for entry in fetched:
                others = [uri for uri in found.get(entry.span.doc_id, ()) if uri != entry.span.uri]
                canary = entry.span.revision == CANARY_REVISION  # no object of the source
                if others and not canary:
                    again.append(dataclasses.replace(entry.span, uri=others[0]))
                else:
                    self._give_up([entry])
                    self._gone |= set() if canary else {entry.span.uri}
        return again

    def _give_up(self, lost: list[Lost]) -> None:
        """Pages that no part could be written for, twice: a store that fails ends the run, anything else fails the pages."""
        for entry in lost:
            if entry.error.code == StoreUnavailable.code:
                raise StoreUnavailable(entry.error.message)
            self._commit(self._writer.write([failed_pages(entry.span, entry.error)]))

    def _commit(self, receipts: list[SpanReceipt]) -> None:
        """Receipts on their way into the ledger; the canaries' are kept for their judgement, made when all are back."""
        if self._canaries is None:
            self._books.received(receipts)
            return
        self._books.received(self._canaries.take(receipts))
        if self._canaries.back and not self._judged:
            self._judge(self._canaries)

    def _judge(self, canaries: Canaries) -> None:
        self._judged = True
        published, found = canaries.verdict()
        self._summary.published, self._summary.canary = published, found
        if not published:
            log.warning("canaries_drifted", words=found["drift"])
        self._committer.add([self._run_record()])

    def _run_record(self) -> Record:
        summary = self._summary
        shown = {
            "status": "running", "source": summary.source, "request": summary.request, "published": summary.published,
            "canary": summary.canary,
        }  # fmt: skip
        return record("run", run_id=self._site.run_id, summary=json.dumps(shown))

    def _received(self, outcome: Outcome, feed: Feed | None = None) -> None:
        self._summary.worked(outcome)
        self._commit(outcome.receipts)
        self._lost += outcome.lost
        self._check_stored(outcome)
        if feed is not None:
            for receipt in outcome.receipts:
                feed.received(receipt.doc_id, receipt.revision, receipt.pages)
            for lost in outcome.lost:
                feed.received(lost.span.doc_id, lost.span.revision, lost.span.pages)
        for lost in outcome.lost:
            if lost.error.code in (EngineUnavailable.code, ConfigError.code):  # no other actor will fare better
                self._stop_with(by_code()[lost.error.code](lost.error.message))

    def _new_feed(self, window: int) -> Feed:
        folder = f"runs/{self._site.run_id}/plan/{self._summary.graphs:04d}"
        return Feed(self._store, folder, window, self._site.config.block_pages)

    # -- what ends a run early -----------------------------------------------------------------------------------------

    def _stop_with(self, error: BaseException) -> None:
        self._error = error  # more important than an earlier one of planning: this driver cannot commit any more
        self._over = True
        self._supply.stop()

    def _check_progress(self) -> None:
        if self._barren > _MOST_BARREN:
            raise ClusterLost(
                f"{self._barren} Ray graphs in a row ended without reading a page, the last of: {self._died_of}"
                + ("" if self._died_full else ". Is the cluster alive?")
            )

    def _check_stored(self, outcome: Outcome) -> None:
        """A store that takes nothing from any worker ends the run; what one worker could not store runs once more at the end."""
        refused = [lost.error.message for lost in outcome.lost if lost.error.code == StoreUnavailable.code]
        if outcome.receipts:
            self._unstored = 0
        elif refused:
            self._unstored += 1
            if self._unstored > _MOST_UNSTORED * max(1, self._summary.workers):
                self._stop_with(StoreUnavailable(refused[0]))

    def _is_over(self) -> bool:
        """Whether this driver cannot go on: what graphs still do is for nothing."""
        return self._over

    def _raise_fatal(self) -> None:
        if self._over:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
