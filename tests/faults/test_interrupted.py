"""P2 in process: a run that ends at each of its writes, before or after it takes effect, then another one to the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import pagemill
import pipelines.raster.rasterize
import pipelines.source.bounds
from pipelines.errors import ExitCode
from pipelines.ingest import ingest
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.store.audit import audit
from pipelines.store.objects import ObjectStore
from pipelines.store.reading import comparable
from tests.builders import archive, text_pdf
from tests.conftest import inline_config


class Cut(BaseException):
    """The process ended here."""


class Scissors:
    """Ends every write from the `at`-th on; that one itself before or after it takes effect."""

    def __init__(self, at: int, after: bool) -> None:
        self.at, self.after, self.writes = at, after, 0
        self._lock = threading.Lock()

    @property
    def cut(self) -> bool:
        return self.writes >= self.at

    def wrap(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def cutting(store: ObjectStore, key: str, *data: bytes) -> Any:
            if "/alive/" in key:
                return write(store, key, *data)
            with self._lock:  # so that nothing is written beside the last one
                self.writes += 1
                if self.writes < self.at:
                    return write(store, key, *data)
                if self.writes == self.at and self.after:
                    write(store, key, *data)
                raise Cut

        return cutting


@contextmanager
def cutting(scissors: Scissors, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for verb in ("put", "put_new", "delete"):
            patch.setattr(ObjectStore, verb, scissors.wrap(getattr(ObjectStore, verb)))
        yield


@pytest.fixture(autouse=True)
def _children_that_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rasterizers' child processes are not what is tested here; starting two for each run would take most of the time."""
    made: list[IsolatedRasterizer] = []

    def shared(close: Callable[[IsolatedRasterizer], None]) -> Callable[..., IsolatedRasterizer]:
        kept = IsolatedRasterizer("pypdfium2", 60, 1024)
        kept.probe(str(text_pdf(tmp_path / "any.pdf", 1)), [])  # begun by this thread: a child ends with its parent thread
        monkeypatch.setattr(kept, "close", lambda: None)
        made.append(kept)
        return lambda *_: kept

    close = IsolatedRasterizer.close
    for module in (pipelines.source.bounds, pipelines.raster.rasterize):
        monkeypatch.setattr(module, "IsolatedRasterizer", shared(close))
    yield
    for kept in made:
        close(kept)


def run(source: Path, output: Path, span_pages: int, take_over: bool = False) -> ExitCode:
    config = inline_config(
        output, source__span_pages=span_pages, source__probe_workers=1, store__merge_every=2, source__cache_dir=f"{source}-cache"
    )
    return ingest(str(source), str(output), config, inline=True, take_over=take_over).exit_code


def contents(output: Path) -> tuple[pa.Table, dict[str, str]]:
    """What readers see: pages, and the Markdown of each document."""
    documents = pagemill.read(str(output), "documents").to_pylist()
    markdown = {row["doc_id"]: (output / row["markdown"]).read_text("utf-8") for row in documents}
    return comparable(pagemill.read(str(output), "pages")), markdown


# cut off before a write, an output is as it was after the one before: both ways in make test would show every state twice
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("after", "step"),
    [
        pytest.param(False, 1, marks=pytest.mark.long, id="before"),
        pytest.param(True, 1, marks=pytest.mark.long, id="after"),
        pytest.param(True, 2, id="after-every-second"),
    ],
)
def test_every_write_of_a_run_as_its_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, step: int) -> None:
    source = archive(tmp_path / "in", {"a": 4, "b": 1})
    assert run(source, tmp_path / "whole", 8) == ExitCode.OK
    undisturbed = contents(tmp_path / "whole")
    at = 1 - step
    while True:
        at += step
        output, scissors = tmp_path / f"cut-{at}", Scissors(at, after)
        with cutting(scissors, monkeypatch), suppress(Cut):
            run(source, output, 2)
        if not scissors.cut:
            break
        assert run(source, output, 3, take_over=True) == ExitCode.OK
        found = contents(output)
        assert found[0].equals(undisturbed[0]), at
        assert found[1] == undisturbed[1], at
        result = audit(str(output), [str(path) for path in source.iterdir()])
        assert result.ok, (at, result.problems, result.pending)
    assert at > 25
