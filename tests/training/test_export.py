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
from pipelines.errors import ConfigError, ExitCode
from pipelines.ingest import ingest
from pipelines.recognize.otsl import otsl_to_html
from pipelines.store.choosing import Choice, read_ids
from pipelines.store.reading import Output
from tests.builders import drawn_pdf, locked_pdf, pdf_bytes
from tests.conftest import ROOT, Call, inline, inline_config
from tests.source.test_web import served
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


PASSWORD = "zqSec-opens"


def test_documents_that_a_manifest_opens_are_drawn_again_with_it(call: Call, tmp_path: Path) -> None:
    """One by its row's password, one by a link with a login; without the manifest both are left out, and said."""
    with served() as site:
        (tmp_path / "locked.pdf").write_bytes(locked_pdf(["in a locked document"], PASSWORD))
        site.files["/locked"] = pdf_bytes(["behind a login"])
        link = site.link("/locked", "me:open%20sesame@")
        (tmp_path / "m.csv").write_text(f"uri,password\nlocked.pdf,{PASSWORD}\n{link},\n")
        assert inline(tmp_path / "m.csv", tmp_path / "out").exit_code == ExitCode.OK
        asked = [tmp_path / "out", tmp_path / "sft", "--where=true", "--set=raster.engine=pypdfium2"]
        asked.append(f"--set=source.cache_dir={tmp_path / 'another-node'}")
        code, said = call("export-sft", *asked)
        assert (code, "0 samples" in said) == (0, True)
        assert "1 page not drawn (ENCRYPTED)" in said
        assert "1 page not drawn (SOURCE_UNREADABLE)" in said
        (tmp_path / "sft" / "train.jsonl").unlink()
        code, said = call("export-sft", *asked, f"--manifest={tmp_path / 'm.csv'}")
    assert (code, "2 samples (2 ocr)" in said) == (0, True), said
    checked = sft.check(tmp_path / "sft" / "train.jsonl")
    answers = sorted(record.turns[0].answer.partition(": ")[2] for record in checked.records)
    assert answers == ["behind a login", "in a locked document"]
    for record in checked.records:
        with Image.open(tmp_path / "sft" / record.turns[0].images[0]) as crop:
            assert np.ptp(np.asarray(crop)) > 100  # something stands there
    for path in (tmp_path / "sft").rglob("*"):
        assert path.is_dir() or not any(secret in path.read_bytes() for secret in (PASSWORD.encode(), b"sesame"))


def test_a_page_that_was_set_upright_is_cut_upright(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    up = "BT /F1 9 Tf 0 1 -1 0 150 10 Tm (a line of words that runs up along the page on its side) Tj ET"
    (tmp_path / "in" / "side.pdf").write_bytes(drawn_pdf([up]))
    config = inline_config(tmp_path / "out", layout__upright="always")
    assert ingest(str(tmp_path / "in"), str(tmp_path / "out"), config, inline=True).exit_code == ExitCode.OK
    (row,) = pagemill.read(str(tmp_path / "out"), "pages").to_pylist()
    assert (row["turned"], row["height_px"] > row["width_px"]) == (270, True)  # it was drawn 300 x 200 points
    written = run((str(tmp_path / "out"), config), tmp_path / "sft", "true")
    assert (written.total, dict(written.skipped)) == (1, {})
    (crop,) = (tmp_path / "sft" / "crops").iterdir()
    with Image.open(crop) as shown:
        assert shown.size == (row["width_px"], row["height_px"])


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
