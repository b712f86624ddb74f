"""What actors saw of their cards comes into the run's report, whichever pool they are in."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import ray

from pipelines.cluster.card_watch import CardWatch
from pipelines.cluster.graph import Actor, decode, encode
from pipelines.observe.summary import Summary
from pipelines.recognize.engines import identify
from pipelines.recognize.gpu_memory import CardUse
from pipelines.schema import Span
from pipelines.stages import Site, stage_names
from tests.builders import text_pdf
from tests.conftest import inline_config

GIB = 1 << 30


class Card:
    """Looks at a card, after which who looks is kept waiting; None: nothing answers for once."""

    def __init__(self, name: str, *busy: float | None) -> None:
        self.looks = [
            None if percent is None else CardUse(name, percent, int(percent) * GIB, 10 * percent, 1540 + percent, percent > 50)
            for percent in busy
        ]
        self.over = threading.Event()

    def __call__(self) -> CardUse | None:
        if self.looks:
            return self.looks.pop(0)
        self.over.set()
        threading.Event().wait()  # for ever: it would look, and sleep, for as long as the tests run
        return None


def watched(card: Card) -> CardWatch:
    watch = CardWatch(card, every_s=0.02)
    assert card.over.wait(30)
    return watch


def test_samples_since_the_last_call() -> None:
    watch = watched(Card("0 a card", 90, 60, None, 30))
    ((name, usage),) = watch.taken().items()
    assert name.endswith(" 0 a card")
    assert usage.as_dict("x") == {
        "card": "x", "samples": 3, "busy_percent": 60.0, "watts": 600.0, "used_bytes": 90 * GIB, "mhz": 1600.0,
        "power_capped_percent": 66.7,
    }  # fmt: skip
    assert watch.taken() == {}


def test_cards_of_every_pool_come_into_the_report(tmp_path: Path) -> None:
    config = inline_config(tmp_path / "out")
    site = Site(config, str(tmp_path / "out"), "run", "print", identify(config))
    path = text_pdf(tmp_path / "a.pdf", 2)
    span = Span(hashlib.sha256(path.read_bytes()).hexdigest(), 1, (0, 1), str(path), 2, "pdf")
    names, was_there = stage_names(config), ray.is_initialized()
    pools = [Actor(names[:1], site), Actor(names[1:2], site), Actor(names[2:], site)]
    assert all(actor._card is None for actor in pools)  # Ray gave none to this process
    assert was_there == ray.is_initialized()  # and nobody started one to ask
    pools[1]._card = watched(Card("0 a card", 80, 100))
    pools[2]._card = watched(Card("1 a card", 40))
    table = encode([span])
    for actor in pools:
        table = actor(table)
    summary = Summary("run", "in", "out", "print", {})
    for _ in range(2):  # as of two blocks
        summary.worked(decode(table))
    shown = [(card["card"].split(" ", 1)[1], card["samples"], card["busy_percent"]) for card in summary.as_dict()["cards"]]
    assert shown == [("0 a card", 4, 90.0), ("1 a card", 2, 40.0)]
