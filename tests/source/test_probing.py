"""Probing: one child while documents open quickly, more where they keep it busy, and never two documents in one at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pipelines.source import probing
from pipelines.source.cache import DocumentCache
from pipelines.source.changes import Candidate, Verdict
from pipelines.source.probing import Prober
from tests.builders import archive
from tests.conftest import inline_config

_PATIENCE_S = 0.05


class Child:
    """In the place of the rasterizer's child; opening takes as long as it is told."""

    seconds = 0.0
    made: list[Child] = []

    def __init__(self, *_: object) -> None:
        self.busy = threading.Lock()
        self.made.append(self)

    def probe(self, path: str, *_: object) -> str:
        assert self.busy.acquire(blocking=False), "two documents at once in one child"
        time.sleep(self.seconds)
        self.busy.release()
        return Path(path).name

    def close(self) -> None: ...


@pytest.mark.parametrize(("seconds", "children"), [(0.0, {1}), (10 * _PATIENCE_S, {3})])
def test_children_by_how_busy_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, children: set[int]
) -> None:
    monkeypatch.setattr(probing, "IsolatedRasterizer", Child)
    monkeypatch.setattr(probing, "_PATIENCE_S", _PATIENCE_S if seconds else 30.0)  # a loaded machine is no slow document
    monkeypatch.setattr(Child, "seconds", seconds)
    monkeypatch.setattr(Child, "made", [])
    config = inline_config(tmp_path / "out", source__probe_workers=3)
    paths = sorted(archive(tmp_path / "in", dict.fromkeys("abcdef", 1)).iterdir())
    prober = Prober(config, DocumentCache.of(config.source))
    try:
        found = list(prober.probe_all(Candidate(Verdict.NEW, path.as_uri(), None, None, None, None, None) for path in paths))
    finally:
        prober.close()
    assert [one.error for one in found] == [None] * 6
    assert {one.candidate.uri for one in found} == {path.as_uri() for path in paths}
    assert {len(Child.made)} == children
