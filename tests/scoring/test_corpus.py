"""`make corpus` from a manifest to a table: states against what is expected, scores, documents that were not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.corpus import corpus
from jobs.scoring.corpus import manifest
from pipelines.errors import ConfigError
from tests.builders import page_text, text_pdf

COLUMNS = "path category source gt_files gt_kind expect".split()  # noqa: SIM905


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text_pdf(tmp_path / "clean" / "a,b.pdf", 2, "a")
    (tmp_path / "clean" / "a.md").write_text("\n\n".join(page_text("a", page) for page in range(2)), "utf-8")
    tests = [
        {"id": "t1", "page": 1, "type": "present", "text": "Document a page 0 says"},
        {"id": "t2", "page": 2, "type": "math"},
    ]
    (tmp_path / "clean" / "a.tests.jsonl").write_text("\n".join(map(json.dumps, tests)), "utf-8")
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "broken.pdf").write_bytes(b"%PDF-1.4 nothing follows")
    rows = [
        ["clean/a,b.pdf", "clean", "made", "clean/a.md|clean/a.tests.jsonl", "exact", "ok"],
        ["hostile/broken.pdf", "hostile", "made", "clean/a.md", "human", "error"],
        ["hostile/gone.pdf", "hostile", "made", "clean/a.md", "tool-output", "ok"],
    ]
    (tmp_path / "manifest.tsv").write_text("\n".join("\t".join(row) for row in [COLUMNS, *rows]), "utf-8")
    return tmp_path


def test_a_corpus_is_read_and_scored(folder: Path, tmp_path: Path) -> None:
    expect = tmp_path / "expect.yaml"
    expect.write_text("states: {ok: [ok], error: [failed]}", "utf-8")
    settings = ["layout.engine=none", "raster.dpi=72", f"source.cache_dir={tmp_path / 'cache'}"]
    corpus(folder, tmp_path / "out", expect=expect, settings=settings, inline=True)
    found = json.loads((tmp_path / "out" / "corpus.json").read_text("utf-8"))
    of = found["documents"]
    assert of["clean/a,b.pdf"]["nid"] > 0.95
    assert of["clean/a,b.pdf"]["tests"] == {"t1": True, "t2": None}
    assert len(of["clean/a,b.pdf"]["cpu_s"]) == 2
    assert of["hostile/broken.pdf"]["nid"] == 0.0
    assert of["hostile/broken.pdf"]["as_expected"]
    assert of["hostile/gone.pdf"]["nid"] is None
    assert found["groups"]["all"]["unexpected"] == ["hostile/gone.pdf"]
    assert found["groups"]["clean"]["states"] == {"ok": 2}
    shown = (tmp_path / "out" / "corpus.md").read_text("utf-8")
    assert "| clean/made | 1 | 2 | 2 | 0 | 0 | 0 | 0 |" in shown


def test_a_folder_that_is_no_corpus(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no manifest\.tsv"):
        manifest(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no path starts with"):
        manifest(folder, ["scans/"])
