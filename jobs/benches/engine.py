"""Bench `engine`: pages a second of PaddleOCR-VL engines on one GPU, true shape, forced lengths; setups side by side.

The engines of all setups live on the card at once (setups of one kind share them) and take turns, round by round, so that
they are measured on the same card in the same minutes; an engine that has nothing to do takes no GPU time. Crops are
packed by CPU workers while the clock runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.benches.base import Figures, table
from jobs.benches.engine_layout import beside
from jobs.benches.engine_profile import profile_of
from jobs.benches.engine_worker import Finished, Order, Recorded, Spec, serve
from jobs.benches.gpu_watch import GpuWatch
from jobs.benches.shape import write_shape
from jobs.benches.workloads import Job, archive, grid, known

_KINDS = ("packed", "shipped", "server")


@dataclass(slots=True, frozen=True)
class Setup:
    """Engines that share a card: `packed:3x512:wave=96`."""

    name: str
    kind: str
    engines: int  # of each card
    seqs: int
    wave: int = 1
    cards: int = 1
    layout: int = 0  # pages a second that layout reads meanwhile, on the first card
    tokens: int = 0  # that every answer has, in the place of the workload's lengths

    @classmethod
    def parse(cls, text: str) -> Setup:
        found = re.fullmatch(r"(\w+):(\d+)x(\d+)((?::(?:wave|cards|layout|tokens)=\d+)*)", text)
        if not found or found[1] not in _KINDS:
            raise typer.BadParameter(
                f"{text}: KIND:ENGINESxPLACES[:wave=N][:cards=N][:layout=PAGES][:tokens=N], with KIND one of {', '.join(_KINDS)}"
            )
        options = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found[4])}
        return cls(text, found[1], int(found[2]), int(found[3]), **options)


def engine(
    setups: Annotated[
        list[str], typer.Argument(help="KIND:ENGINESxPLACES[:wave=N][:cards=N][:layout=PAGES][:tokens=N]; KIND: packed ...")
    ],
    workload: Annotated[
        Literal["known", "archive"], typer.Option(help="lengths by area, or as real archives have them")
    ] = "known",
    boxes: Annotated[
        Path | None, typer.Option(help="for archive: block sizes of real pages, of `python -m jobs.benches.workloads`")
    ] = None,
    pages: Annotated[int, typer.Option(help="read in each round by a packed setup")] = 600,
    shipped_pages: Annotated[int, typer.Option(help="read in each round by other setups, much slower")] = 120,
    rounds: Annotated[int, typer.Option(help="of all setups, one after the other")] = 1,
    packers: Annotated[int, typer.Option(help="CPU workers that pack, divided among a setup's engines")] = 8,
    ahead_pages: Annotated[int, typer.Option(help="pages being packed or not wholly offered, all engines together")] = 64,
    kv_mib: Annotated[float, typer.Option(help="KV cache of an engine, MiB a place; 18 KiB a token")] = 12,
    batched: Annotated[int, typer.Option(help="max_num_batched_tokens")] = 16_384,
    eager: Annotated[bool, typer.Option(help="no CUDA graphs; where there is no GPU")] = False,
    cards: Annotated[str, typer.Option(help="numbers of the cards, as nvidia-smi has them; empty: the one that is visible")] = "",
    price: Annotated[float | None, typer.Option(help="of the card, an hour: what a million pages cost")] = None,
    extra: Annotated[str, typer.Option(help="further engine arguments, JSON")] = "{}",
    profile: Annotated[
        float,
        typer.Option(help="seconds in which a packed engine's kernels are recorded, where --profile-at says; slows it"),
    ] = 0,
    profile_at: Annotated[
        list[float] | None, typer.Option(help="share of a round's pages, several times, else 0.5; 1: in the tail after them")
    ] = None,
    tiny: Annotated[bool, typer.Option(help="a model of a few thousand weights, to try the bench without a GPU")] = False,
) -> Figures:
    """Pages a second of engines on one GPU, against vLLM as shipped."""
    chosen = [Setup.parse(text) for text in setups]
    if workload == "archive" and boxes is None:
        raise typer.BadParameter("--workload archive needs --boxes FILE")
    if profile_at and not profile:
        raise typer.BadParameter("--profile-at needs --profile SECONDS")
    recorded = Recorded(profile, tuple(profile_at or [0.5]))
    figures = Figures(
        "engine", {"workload": workload, "pages": pages, "packers": packers, "batched tokens": batched, "rounds": rounds}
    )
    with tempfile.TemporaryDirectory() as folder:
        model = write_shape(Path(folder) / "shape", tiny)
        traces = Path(folder) / "traces"
        settings = {"kv_mib": kv_mib, "batched": batched, "eager": eager, "extra": extra, "packers": packers}
        settings |= {"profile": str(traces)} if profile else {}
        numbers = cards.split(",") if cards else [""]
        with started(chosen, model, settings, numbers) as teams, beside(chosen, Path(folder) / "layout", numbers[0]) as layout:
            for number in range(rounds):
                for setup in chosen:
                    count = pages if setup.kind == "packed" else shipped_pages
                    work = _work(workload, boxes, count, 7 + number, setup.tokens)
                    with layout.at(setup.layout) as seen:
                        row = measured(setup, _team(teams, setup, chosen), work, ahead_pages, number, numbers, recorded)
                    row |= seen
                    figures.rows.append(
                        row | ({} if price is None else {"a million pages": round(price * 1e6 / 3600 / row["pages/s"])})
                    )
                    print(figures.rows[-1], flush=True)
                    figures.notes += _profiles(setup, traces)
    if workload == "known":
        figures.notes.append("known: lengths are a function of area, few grids; it flatters (see docs/performance.md)")
    return figures


def _profiles(setup: Setup, traces: Path) -> list[str]:
    """What the round's traces say; they are deleted, the next round writes its own."""
    lines = []
    for trace in sorted(traces.glob("*.json*")):
        found = profile_of(trace)
        lines += [f"profile of one engine, {setup.name}:", *found.notes(), *table(found.rows())]
        trace.unlink()
    return lines


def _work(workload: str, boxes: Path | None, pages: int, seed: int, tokens: int) -> list[list[Job]]:
    work = archive(boxes, pages, seed) if workload == "archive" and boxes is not None else known(pages, seed)
    return [[replace(job, tokens=tokens) for job in page] for page in work] if tokens else work


# -- the engines of a setup, each in a process of its own ----------------------------------------------------------------


@dataclass(slots=True)
class _Member:
    process: Any
    pipe: Any
    started_s: float = 0.0


@contextlib.contextmanager
def started(
    setups: Sequence[Setup], model: Path, settings: dict[str, Any], cards: Sequence[str] = ("",)
) -> Iterator[dict[str, list[_Member]]]:
    """Engines of each kind, as many as its largest setup needs, all started at once: each has its own KV cache's bytes.

    Those of a kind stand card by card; a card's number "" is whichever is visible.
    """
    context = mp.get_context("spawn")
    counter = context.Value("i", 0)
    teams: dict[str, list[_Member]] = {}
    try:
        for kind in dict.fromkeys(setup.kind for setup in setups):
            mine = [setup for setup in setups if setup.kind == kind]
            engines, places = max(setup.engines for setup in mine), max(setup.seqs for setup in mine)
            for card in (card for card in cards[: max(setup.cards for setup in mine)] for _ in range(engines)):
                ours, theirs = context.Pipe()
                spec = Spec(str(model), kind, places, engines, card=card, **settings)
                member = _Member(context.Process(target=serve, args=(spec, theirs, counter)), ours)
                teams.setdefault(kind, []).append(member)
                member.process.start()
        for team in teams.values():
            for member in team:
                _ready(member)
        yield teams
    finally:
        for team in teams.values():
            for member in team:
                _stop(member)


def _team(teams: dict[str, list[_Member]], setup: Setup, setups: Sequence[Setup]) -> list[_Member]:
    """Of each card that the setup takes, as many engines as it wants."""
    each = max(other.engines for other in setups if other.kind == setup.kind)
    return [teams[setup.kind][card * each + n] for card in range(setup.cards) for n in range(setup.engines)]


def _ready(member: _Member, within_s: float = 400) -> None:
    if not member.pipe.poll(within_s):
        raise RuntimeError(f"an engine did not start within {within_s} s")
    said = member.pipe.recv()
    if isinstance(said, str):
        raise RuntimeError(said)
    member.started_s = float(said)


def _stop(member: _Member) -> None:
    if member.process.pid is None:
        return
    with contextlib.suppress(OSError):
        member.pipe.send(None)
    member.process.join(20)
    if member.process.is_alive():
        member.process.kill()


# -- a round -------------------------------------------------------------------------------------------------------------


def measured(
    setup: Setup,
    team: list[_Member],
    work: list[list[Job]],
    ahead_pages: int,
    number: int,
    cards: Sequence[str] = ("",),
    recorded: Recorded = Recorded(),
) -> dict[str, Any]:
    order = Order(work, setup.seqs, setup.wave, max(1, ahead_pages // len(team)), number, recorded)
    for member in team:
        member.pipe.send(order)
    for member in team:
        member.pipe.recv()  # it has what it needs; nobody starts before all have
    with GpuWatch(cards[: setup.cards]) as watch:
        begin = time.time()
        for member in team:
            member.pipe.send("go")
        results = [_result(member) for member in team]
        end = max(result.end for result in results)
    ends = sorted(at for result in results for at in result.page_ends)
    fed = min(result.fed for result in results)  # when the first engine found no more pages to take
    return _row(setup, work, ends, begin, end, fed, results) | watch.between(begin, end)


def _result(member: _Member) -> Finished:
    said = member.pipe.recv()
    if isinstance(said, str):
        raise RuntimeError(said)
    assert isinstance(said, Finished)
    return said


def _row(
    setup: Setup, work: list[list[Job]], ends: list[float], begin: float, end: float, fed: float, results: list[Finished]
) -> dict[str, Any]:
    jobs = [job for page in work for job in page]
    grids = [grid(job.height, job.width) for job in jobs]
    tokens = sum(result.tokens for result in results)
    if tokens != sum(job.tokens for job in jobs) or len(ends) != len(work):
        raise RuntimeError(f"{setup.name}: {tokens} tokens and {len(ends)} pages came, others were asked for")
    early = ends[len(ends) // 10]
    steady = sum(early < at <= fed for at in ends) / (fed - early) if fed > early + 1 else 0.0
    seconds = end - begin
    return {
        "setup": setup.name, "pages/s": round(len(work) / seconds, 2), "steady pages/s": round(steady, 2),
        "crops/s": round(len(jobs) / seconds), "tok/s": round(tokens / seconds), "seconds": round(seconds, 1),
        "tail s": round(end - fed, 1),
        "pages": len(work), "tok/page": round(tokens / len(work)), "crops/page": round(len(jobs) / len(work), 1),
        "patches/page": round(sum(h * w for h, w in grids) / len(work)), "grids": len(set(grids)),
        "packing CPU-s": round(sum(result.packing_s for result in results), 1),
    }  # fmt: skip
