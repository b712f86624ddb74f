"""Graphs whose pools reserve cards, on a machine that only says it has two: Ray treats such pools differently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.builders import drawn_pdf, text_at
from tests.conftest import ROOT

RUN = """
import functools, sys
import ray
ray.init = functools.partial(ray.init, num_gpus=2)
from pipelines import pipeline
from pipelines.config import load
from pipelines.ingest import ingest
plan, seen, calls = pipeline.plan_pools, [], []
REAL = load(settings=["recognize.engine=vllm", "layout.engine=transformers", "ray.workers=1"])  # whose pools share cards

def with_cards(config, cpus, gpus, workers):
    seen.append(gpus)
    pools = plan(REAL, cpus, gpus, workers)
    calls.extend(p.calls for p in pools if p.names == ("recognize",))
    return pools

pipeline.plan_pools = with_cards
ended = ingest(sys.argv[1], sys.argv[2], load(settings=[
    "recognize.engine=tests.engines:DigestOnCard", "layout.engine=tests.engines:BandsOnCard", "raster.dpi=36",
    "raster.engine=pypdfium2", "ray.workers=1", "ray.fuse=false", "ray.block_pages=2", "observe.report_pages=0",
    f"source.cache_dir={sys.argv[2]}-cache"]))
assert seen == [2], seen
assert calls[0] > 1, calls
assert ended.exit_code == 0, ended.summary.message
"""


def test_pools_that_reserve_a_card_read_every_page(tmp_path: Path) -> None:
    import pagemill

    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.pdf").write_bytes(drawn_pdf([text_at(20, 100, f"{name} {n}") for n in range(5)]))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "in"), str(tmp_path / "out")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = pagemill.read(str(tmp_path / "out"), "pages", columns=["state", "blocks"]).to_pylist()
    assert [len(page["blocks"]) for page in pages] == [3] * 10, pages
    assert all(page["state"] in ("ok", "degraded") for page in pages)  # a digest is no table
    # each card has a layout actor and its engine: Ray by itself put both layouts on one card, and an engine waited for ever
    notes = list((tmp_path / "cards").iterdir())
    found = {role: sorted(path.read_text() for path in notes if path.name.startswith(role)) for role in ("engine", "layout")}
    assert found == {"engine": ["0", "1"], "layout": ["0", "1"]}
