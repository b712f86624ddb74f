"""Reviewed pages as training data: crops of what was read, answers as a model would say them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rapidocr", reason="the embedded reader is not in the environment of vLLM")

import pagemill
from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.ingest import ingest
from pipelines.recognize.otsl import otsl_to_html
from pipelines.store.choosing import Choice, read_ids
from pipelines.store.reading import Output
from tests.conftest import ROOT
from training import sft
from training.answers import otsl
from training.export import Written, answer_of, export, html_to_otsl, read_corrections


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    folder = tmp_path_factory.mktemp("export")
    (folder / "in").mkdir()
    for name in ("form-tables.pdf", "scan.pdf"):
        (folder / "in" / name).write_bytes((ROOT / "samples" / "documents" / name).read_bytes())
    config = load(settings=["layout.engine=embedded", "recognize.engine=embedded", f"source.cache_dir={folder / 'cache'}"])
    ingest(str(folder / "in"), str(folder / "out"), config, inline=True)
    return str(folder / "out"), config


def run(
    read: tuple[str, Any], folder: Path, where: str, corrections: dict[Any, str] | None = None, ids: Path | None = None
) -> Written:
    with Output(read[0]) as opened:
        return export(opened, Choice(where, ids=read_ids(str(ids), {}) if ids else None), folder, read[1], corrections)


def test_every_sample_shows_what_it_says(read: tuple[str, Any], tmp_path: Path) -> None:
    written = run(read, tmp_path / "sft", "state = 'ok'")
    checked = sft.check(tmp_path / "sft" / "train.jsonl")
    assert [str(problem) for problem in checked.problems] == []
    assert checked.tasks == written.samples
    assert written.samples["table"] >= 1
    assert written.samples["ocr"] >= 5
    blocks = {
        (row["doc_id"][:16], row["page_index"], row["block_index"]): row for row in pagemill.read(read[0], "blocks").to_pylist()
    }
    for record in checked.records:
        (turn,) = record.turns
        doc, page, block = Path(turn.images[0]).stem.split("-")
        row = blocks[doc, int(page), int(block)]
        with Image.open(tmp_path / "sft" / turn.images[0]) as crop:
            x0, y0, x1, y1 = row["bbox_px"]
            assert abs(crop.width - (x1 - x0)) <= 1
            assert abs(crop.height - (y1 - y0)) <= 1
            assert np.ptp(np.asarray(crop)) > 100  # something stands there
        if turn.task == "table":
            assert otsl(turn.answer) is None
            assert otsl_to_html(turn.answer).count("<td") == row["html"].count("<td")
        else:
            assert turn.answer == row["content"].strip()
    total = sum(1 for row in blocks.values() if row["state"] == "ok")
    assert written.total + sum(written.skipped.values()) == total  # nothing disappears unnamed


def test_only_the_chosen_pages(read: tuple[str, Any], tmp_path: Path) -> None:
    some = pagemill.read(read[0], "pages").to_pylist()[0]["doc_id"]
    (tmp_path / "reviewed.csv").write_text(f"doc_id\n{some}\n")
    written = run(read, tmp_path / "sft", "true", ids=tmp_path / "reviewed.csv")
    names = {json.loads(line)["image_info"][0]["image_url"] for line in (tmp_path / "sft" / "train.jsonl").open()}
    assert written.total == len(names) > 0
    assert {Path(name).name[:16] for name in names} == {some[:16]}
    assert run(read, tmp_path / "none", "false").total == 0


def test_a_reviewers_words_win(read: tuple[str, Any], tmp_path: Path) -> None:
    block = next(row for row in pagemill.read(read[0], "blocks").to_pylist() if row["label"] == "text")
    key = {name: block[name] for name in ("doc_id", "page_index", "block_index")}
    (tmp_path / "c.jsonl").write_text(json.dumps({**key, "text": "what it really says"}) + "\n")
    run(read, tmp_path / "sft", "true", read_corrections(tmp_path / "c.jsonl"))
    said = [record.turns[0].answer for record in sft.check(tmp_path / "sft" / "train.jsonl").records]
    assert said.count("what it really says") == 1


def test_what_is_wrong_is_named(read: tuple[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--where nothing: .*nothing"):
        run(read, tmp_path / "a", "nothing")
    run(read, tmp_path / "b", "false")
    with pytest.raises(ConfigError, match="is there already"):
        run(read, tmp_path / "b", "true")
    (tmp_path / "c.jsonl").write_text('\n{"doc_id": "x"}\n')
    with pytest.raises(ConfigError, match="line 2: expected doc_id"):
        read_corrections(tmp_path / "c.jsonl")


def test_a_source_that_is_gone_is_counted(read: tuple[str, Any], tmp_path: Path) -> None:
    config = read[1].model_copy(update={"source": read[1].source.model_copy(update={"cache_dir": str(tmp_path / "empty")})})
    moved = [Path(uri.removeprefix("file://")) for row in pagemill.read(read[0], "documents").to_pylist() for uri in row["uris"]]
    for path in moved:
        path.rename(path.with_suffix(".away"))
    try:
        written = run((read[0], config), tmp_path / "sft", "true")
    finally:
        for path in moved:
            path.with_suffix(".away").rename(path)
    assert written.total == 0
    assert written.skipped["page not drawn (SOURCE_UNREADABLE)"] > 5


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("<table><tr><td>a &amp; b</td><td></td></tr></table>", "<fcel>a & b<ecel><nl>"),
        (
            '<table><tr><td rowspan="2" colspan="2">a</td><td>b</td></tr><tr><td>c</td></tr></table>',
            "<fcel>a<lcel><fcel>b<nl><ucel><xcel><fcel>c<nl>",
        ),
        ("no table", ""),
    ],
)
def test_html_to_otsl(html: str, wanted: str) -> None:
    assert html_to_otsl(html) == wanted


def test_otsl_comes_back_as_the_same_table() -> None:
    for written in ("<fcel>a<lcel><fcel>b<nl><ucel><xcel><ecel><nl>", "<fcel>1<fcel>2<nl><ecel><fcel>x y<nl>"):
        assert html_to_otsl(otsl_to_html(written)) == written


def test_answers_are_in_the_models_words() -> None:
    assert answer_of({"raw": None, "content": "$$ x $$", "html": None}, "formula") == "\\[ x \\]"
    assert answer_of({"raw": "\\[ x \\]", "content": "$$ x $$", "html": None}, "formula") == "\\[ x \\]"
    assert answer_of({"raw": None, "content": " two\nlines ", "html": None}, "ocr") == "two\nlines"
