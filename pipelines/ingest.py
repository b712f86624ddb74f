"""One job from its arguments to its exit code: claim, run, report, release.

Invariant: whatever happens after the claim, the run's end is reported and the claim released, unless the lane was lost.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import FrameType

from pipelines.canary import Canaries
from pipelines.config import Config, StoreConfig
from pipelines.deadline import Deadline
from pipelines.errors import ConfigError, ExitCode, Fenced, PagemillError
from pipelines.fingerprint import fingerprint, layout_fingerprint, prints_of
from pipelines.layout.detect import load_engine
from pipelines.layout.orientation import Orientation
from pipelines.layout.unwarp import unwarper_of
from pipelines.layout.upright import upright_of
from pipelines.observe.log import EventLog, configure
from pipelines.observe.pages import pages_of_run
from pipelines.observe.progress import Progress
from pipelines.observe.summary import Summary
from pipelines.options import Prints
from pipelines.output import choose_lane, new_run_id, open_existing, open_output
from pipelines.pipeline import Plan, Run
from pipelines.recognize.engines import Identity, identify, is_vision
from pipelines.secrets import public
from pipelines.source.discovery import Discovery, given_by
from pipelines.source.manifest import Secret
from pipelines.source.reprocess import Reprocess
from pipelines.stages import Site
from pipelines.store.choosing import Choice, Preview, choose, preview_of
from pipelines.store.ledger import Ledger
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import Output
from pipelines.store.records import record

log = EventLog()


_COUNT_LEFT_S = 60.0  # how long a run that drains at its deadline goes on listing, to say what it leaves


class Riding(Enum):
    """Whether canaries are read beside what the plan brings."""

    NONE = "none"
    ALONG = "along"  # where there is something to read
    ALONE = "alone"  # in any case, as the new baseline


Planning = Callable[[Site, Ledger, Summary], Plan]


@dataclass(slots=True, frozen=True)
class Ended:
    """How a job ended; the report's keys are below OUTPUT."""

    summary: Summary
    exit_code: ExitCode
    report: dict[str, str]


def ingest(
    source: str, output: str, config: Config, *, inline: bool = False, take_over: bool = False,
    until: datetime | None = None, lanes: int | None = None, lane: int | None = None, canaries: bool = False,
) -> Ended:  # fmt: skip
    """Reads everything of `source` that `output` does not have yet, or what of it can be read `until` then; `canaries`: those
    of the configuration ride along.

    Args:
        lanes, lane: as of `choose_lane`; an output that is made now gets so many.

    Raises:
        PagemillError: before the claim (bad configuration, unwritable output, fenced). Afterwards errors end in `Ended`.
    """

    given = given_by(source, config)

    def plan(site: Site, ledger: Ledger, summary: Summary) -> Plan:
        return Discovery(site, source, ledger, summary, _COUNT_LEFT_S if until else 0, given)

    return run_job(
        source, output, config, plan, inline=inline, take_over=take_over, until=until, lanes=lanes, lane=lane,
        opening=lambda place, store: open_output(place, store, lanes or 1),
        riding=_riding(config, canaries), secrets=given.table(),
    )  # fmt: skip


def record_canaries(
    output: str, config: Config, *, inline: bool = False, take_over: bool = False, lane: int | None = None
) -> Ended:
    """Reads the canaries alone: from now on they are to say what they say here.

    Raises:
        PagemillError: as `ingest`; no output.
    """
    if config.canary.documents == "none":
        raise ConfigError("canary.documents is none: there is nothing to record. Try: --set canary.documents=shipped")

    def plan(site: Site, ledger: Ledger, summary: Summary) -> Plan:
        return lambda: iter(())

    return run_job(
        "canaries", output, config, plan, inline=inline, take_over=take_over, lane=lane, opening=open_existing,
        riding=Riding.ALONE,
    )  # fmt: skip


def reprocess(
    output: str, choice: Choice, config: Config, *, inline: bool = False, take_over: bool = False, lane: int | None = None,
    canaries: bool = False,
) -> Ended:  # fmt: skip
    """Reads chosen pages of `output` again.

    Args:
        lane: as of `choose_lane`; of the chosen documents those that belong to it are read.
        canaries: those of the configuration ride along.

    Raises:
        PagemillError: as `ingest`; a choice that is none, or no output.
    """
    preview(output, choice, config, most=0)

    def plan(site: Site, ledger: Ledger, summary: Summary) -> Plan:
        return Reprocess(site, choice, ledger, summary).plan

    source = f"reprocess {choice.words()}"
    return run_job(
        source, output, config, plan, inline=inline, take_over=take_over, opening=open_existing, lane=lane,
        riding=_riding(config, canaries),
    )  # fmt: skip


def _riding(config: Config, canaries: bool) -> Riding:
    return Riding.ALONG if canaries and config.canary.documents != "none" else Riding.NONE


def preview(output: str, choice: Choice, config: Config, most: int | None = None) -> Preview:
    """What `reprocess` would read; fetches nothing and writes nothing.

    Raises:
        ConfigError
    """
    with Output(output, config.store.storage_options, parts=False) as opened:
        reader = identify(config)
        weights = _engines(config, reader)[1]
        prints = prints_of(config, weights)
        choose(opened, choice, prints, most)
        return preview_of(opened, choice, prints, is_vision(config.recognize))


def run_job(
    source: str, output: str, config: Config, plan: Planning, *, inline: bool, take_over: bool,
    opening: Callable[[str, StoreConfig], ObjectStore] = open_output, until: datetime | None = None,
    lanes: int | None = None, lane: int | None = None, riding: Riding = Riding.NONE, secrets: tuple[Secret, ...] = (),
) -> Ended:  # fmt: skip
    """Claims an output, reads what the plan brings, reports, releases.

    Args:
        source: what the report calls the source.
        opening: `open_existing` for a job that makes no output.
        until: when it must be over; what is left then is for the next run.
        lanes, lane: as of `choose_lane`.
        secrets: what opens documents, by the numbers that the plan has.

    Raises:
        PagemillError: before the claim. Afterwards errors end in `Ended`.
    """
    reader = identify(config)
    engines, weights = _engines(config, reader)
    prints = fingerprint(config, weights), layout_fingerprint(config, weights)
    site = Site(config, output, new_run_id(), prints[0], reader, prints[1], weights, secrets)
    store = opening(output, config.store)
    ledger = Ledger(store, choose_lane(store, lanes, lane), merge_every=config.store.merge_every)
    summary = Summary(site.run_id, public(source), public(output), site.fingerprint, engines)
    ledger.claim(site.run_id, config.claim.stale_after_s, config.claim.beat_s, take_over)
    configure(config.observe.log_level, site.run_id)
    log.info("run_started", source=summary.source, output=summary.output, fingerprint=site.fingerprint)
    try:
        canaries = None if riding is Riding.NONE else Canaries(site, store, ledger, anyway=riding is Riding.ALONE)
        run = Run(site, plan(site, ledger, summary), store, ledger, summary, canaries)
        begun = {"status": "running", "source": summary.source, "request": summary.request}
        with _draining(run) as handles:  # before anybody can see that the run has begun
            ledger.append([record("run", run_id=site.run_id, summary=json.dumps(begun))])
            exit_code = _execute(run, summary, config, inline, until, handles)
        report = _report(summary, exit_code, store, ledger, config, secrets)
        log.info(
            "run_ended", status=summary.status, exit=exit_code.name, pages=summary.pages_done, failed=summary.pages["failed"],
            pending=summary.pending, seconds=summary.elapsed(),
        )  # fmt: skip
    finally:
        _release(ledger)
    return Ended(summary, exit_code, report)


def _engines(config: Config, reader: Identity) -> tuple[dict[str, str], dict[str, str]]:
    layout = load_engine(config)
    names = {"raster": config.raster.engine, "layout": layout.name, "recognize": reader.name}
    weights = {"layout": layout.weights, "recognize": reader.weights}
    if config.paddleocr_vl.use_doc_orientation_classify:
        weights["orientation"] = Orientation(1).weights
    elif (upright := upright_of(config)) is not None:
        weights["orientation"] = upright.weights
    if (unwarper := unwarper_of(config)) is not None:
        weights["unwarping"] = unwarper.weights
    return names, weights


def fingerprint_of(config: Config) -> str:
    """What a run with this configuration would record.

    Raises:
        ConfigError: an engine is not installed.
    """
    return fingerprints_of(config)("")[0]


def fingerprints_of(config: Config) -> Prints:
    """The same for documents with options of their own.

    Raises:
        ConfigError: an engine is not installed.
    """
    return prints_of(config, _engines(config, identify(config))[1])


def _execute(run: Run, summary: Summary, config: Config, inline: bool, until: datetime | None, handles: bool) -> ExitCode:
    """
    Args:
        handles: whether this thread handles signals.
    """
    deadline: Deadline | None = None
    try:
        with ExitStack() as around:
            around.enter_context(Progress(summary, config.observe.line_every_s))
            if until is not None:
                deadline = Deadline(until, config.nightly.drain_s, run.under_way_s, run.drain, handles)
                around.enter_context(deadline)
            run.execute(inline)
        if deadline is not None and deadline.drained:
            summary.message = f"ended by --until {deadline.until.isoformat(timespec='seconds')}"
        return _outcome(run, summary)
    except PagemillError as error:
        summary.status = "fenced" if isinstance(error, Fenced) else "failed"
        summary.message = f"{error.code}: {error}"
        return error.exit_code
    except KeyboardInterrupt:
        summary.status, summary.message = "interrupted", "stopped at once by a second signal; what was committed stays"
        if deadline is not None and deadline.missed:
            summary.message = "stopped at --until before it had drained; what was committed stays"
        return ExitCode.INTERRUPTED


def _outcome(run: Run, summary: Summary) -> ExitCode:
    failed = sum(summary.source_errors.values()) + summary.pages["failed"]
    failed += summary.documents["failed"] + summary.documents["encrypted"] + summary.documents["partial"]
    if run.drained:
        summary.status = "interrupted"
        return ExitCode.UNPUBLISHED if summary.published is False else ExitCode.INTERRUPTED
    nothing = not summary.planned_pages and not summary.documents and not summary.source_errors
    summary.status = "nothing_to_do" if nothing else "finished"
    if summary.published is False:
        return ExitCode.UNPUBLISHED
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _report(
    summary: Summary, exit_code: ExitCode, store: ObjectStore, ledger: Ledger, config: Config, secrets: tuple[Secret, ...] = ()
) -> dict[str, str]:
    import time

    from pipelines.observe.report import write_report  # its templates and Markdown: a quarter of what a start would import

    summary.ended = time.time()
    summary.requests.update(store.counts)
    if exit_code is ExitCode.FENCED:
        return {}  # another driver writes here now
    try:
        whole = summary.status == "finished"  # who drains wants to be gone; `pagemill report` draws the pages later
        chosen = summary.sampler.choose(config.observe.report_pages) if whole else []
        pages = pages_of_run(chosen, store, config, secrets)
        keys = write_report(summary, store, config.as_yaml(), exit_code, pages)
        shown = summary.as_dict() | {"exit_code": int(exit_code)}
        for name in ("timeline", "failures", "slowest", "slowest_documents", "doubtful"):
            shown.pop(name)  # in report.json; the ledger keeps counts
        ledger.append([record("run", run_id=summary.run_id, summary=json.dumps(shown))])
        return keys
    except PagemillError as error:
        log.warning("report_failed", error=error)
        return {}


def _release(ledger: Ledger) -> None:
    try:
        ledger.release()
    except PagemillError as error:
        log.warning("release_failed", error=error)  # the claim goes stale by itself
    ledger.close()


@contextmanager
def _draining(run: Run) -> Iterator[bool]:
    """The first SIGINT or SIGTERM drains, the second stops; False where this thread may not handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if run.drained:
            raise KeyboardInterrupt
        log.warning("draining", signal=signal.Signals(number).name)
        run.drain()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
