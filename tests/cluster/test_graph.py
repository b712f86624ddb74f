"""What Ray makes of the blocks that the feed publishes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipelines.cluster.feed import Feed
from pipelines.cluster.graph import run_graph
from pipelines.cluster.pools import Pool
from pipelines.cluster.session import Session
from pipelines.recognize.engines import identify
from pipelines.schema import Span
from pipelines.stages import Site, stage_names
from pipelines.store.objects import ObjectStore
from tests.builders import text_pdf
from tests.conftest import inline_config


def test_a_block_of_several_documents_is_read_as_one(ray_address: str, tmp_path: Path) -> None:
    """Else each short document costs a task of Ray's and a part of its own, whatever `ray.block_pages` says."""
    config = inline_config(tmp_path / "out", ray__address=ray_address)
    site = Site(config, str(tmp_path / "out"), "run", "print", identify(config))
    paths = [text_pdf(tmp_path / f"{number}.pdf", 2) for number in range(5)]
    names = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    spans = [Span(name, 1, (0, 1), str(path), 2, "pdf") for name, path in zip(names, paths, strict=True)]
    feed = Feed(ObjectStore(site.output), "plan", window=100, block_pages=8)
    feed.publish([spans[:1], spans[1:4]])
    feed.publish([spans[4:]])
    feed.end()
    with Session(config.ray, None):
        pool, up = Pool(stage_names(config), cpus=0.5), list[tuple[Pool, int]]()
        outcomes = list(run_graph(site, "plan", [pool], {}, lambda: False, up=lambda *seen: up.append(seen)))
    assert up[0] == (pool, 0)  # it starts
    assert (pool, 1) in up
    found = sorted(sorted(names.index(receipt.doc_id) for receipt in outcome.receipts) for outcome in outcomes)
    assert found == [[0], [1, 2, 3], [4]], outcomes
    assert all(len({receipt.part for receipt in outcome.receipts}) == 1 for outcome in outcomes)
    assert all(receipt.states == ("ok", "ok") for outcome in outcomes for receipt in outcome.receipts), outcomes
