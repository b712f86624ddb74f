"""Exports: official files and names, tables as grids; what is in them is what was read, and nothing leaves its folder."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.assemble.official.stored import stored_page, stored_result
from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.export.documents import Exported
from pipelines.export.paddleocr import PaddleOcrExport
from pipelines.export.tables import CsvWriter, JsonWriter, XlsxWriter, grid, tables
from pipelines.ingest import ingest
from pipelines.schema import Block, Box, PageWork
from pipelines.store.objects import ObjectStore
from pipelines.store.parts import document_folder, page_row
from tests.builders import archive

DOC = "d" * 64
ROWS = "<tr><td>Plant</td><td>Height</td></tr>"


def block(label: str, content: str = "", y: float = 0, **more: object) -> Block:
    return Block(label, Box(10.9, y, 200.2, y + 20), content, "pixels", "e", "w", **more)  # type: ignore[arg-type]


def row(index: int, *blocks: Block, state: str = "ok") -> dict:  # type: ignore[type-arg]
    work = PageWork(DOC, index, blocks=list(blocks), width_px=400, height_px=600, dpi=144.0)
    return page_row(work) | {"state": state}


def table(*cells: str) -> str:
    body = "".join(f"<tr><td>{cell}</td><td>1</td></tr>" for cell in cells)
    return f"<table>{ROWS}{body}</table>"


def document(*rows: dict, uri: str = "/in/a report.pdf", form: str = "pdf") -> Exported:  # type: ignore[type-arg]
    return Exported(DOC, uri, form, len(rows), list(rows))


# -- the official form -----------------------------------------------------------------------------------------------


def test_labels_boxes_order_are_the_official_ones() -> None:
    options = load().paddleocr_vl
    page, images = stored_page(
        row(
            0, block("title", "Heading", native_label="doc_title"), block("text", "words"), block("page_number", "7"),
            block("table", "x", html=table("a")), block("figure", "in it", image="f.png"), block("list", "one"),
        )
    )  # fmt: skip
    result = stored_result(page, options, 1)
    records = result["parsing_res_list"]
    assert [r["block_label"] for r in records] == ["doc_title", "text", "number", "table", "image", "text"]
    assert [r["block_order"] for r in records] == [1, 2, None, None, None, 3]
    assert records[3]["block_content"].startswith("<table>")
    assert records[0]["block_bbox"] == [10, 0, 200, 20]
    assert images == {"imgs/img_in_image_box_10_0_200_20.jpg": "f.png"}
    boxes = result["layout_det_res"]["boxes"]
    assert [box["cls_id"] for box in boxes] == [6, 22, 16, 21, 14, 22]
    assert [box["order"] for box in boxes] == [1, 2, 3, None, None, 4]  # numbers are ordered here, as officially
    assert not any("score" in box for box in boxes)
    assert list(result) == ["page_count", "width", "height", "model_settings", "parsing_res_list", "layout_det_res"]


@pytest.fixture
def stores(tmp_path: Path) -> tuple[ObjectStore, ObjectStore]:
    source, target = ObjectStore(str(tmp_path / "out")), ObjectStore(str(tmp_path / "files"))
    for name, grey in (("red.png", 10), ("blue.png", 240)):
        sink = io.BytesIO()
        Image.fromarray(np.full((20, 190, 3), grey, np.uint8)).save(sink, "PNG")
        source.put(f"{document_folder(DOC)}/{name}", sink.getvalue())
    return source, target


def exported(stores: tuple[ObjectStore, ObjectStore], found: Exported, restructure: bool = False, **options: object) -> Path:
    config = load(settings=[f"paddleocr_vl.{key}={json.dumps(value)}" for key, value in options.items()]).paddleocr_vl
    writer = PaddleOcrExport(*stores, config, restructure, None)
    writer.document(found)
    assert writer.counts.documents == 1
    (folder,) = Path(stores[1].root).iterdir()
    return folder


def test_files_of_a_document(stores: tuple[ObjectStore, ObjectStore]) -> None:
    pages = [row(0, block("figure", image="red.png")), row(1, block("figure", image="blue.png"), block("text", "words")),
             row(2, state="failed")]  # fmt: skip
    folder = exported(stores, document(*pages))
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == [
        "a report_0.md", "a report_0_res.json", "a report_1.md", "a report_1_res.json", "a report_layout_parsing.json",
        "imgs/img_in_image_box_10_0_200_20.jpg", "imgs/page_1_img_in_image_box_10_0_200_20.jpg",
    ]  # fmt: skip
    saved = json.loads((folder / "a report_1_res.json").read_text("utf-8"))
    assert list(saved)[:3] == ["input_path", "page_index", "page_count"]
    assert (saved["input_path"], saved["page_index"], saved["page_count"]) == ("/in/a report.pdf", 1, 3)
    assert saved["layout_det_res"]["input_path"] is None
    text = (folder / "a report_1.md").read_text("utf-8")
    assert 'src="imgs/page_1_img_in_image_box_10_0_200_20.jpg"' in text
    for name, grey in (("img_in_image_box_10_0_200_20.jpg", 10), ("page_1_img_in_image_box_10_0_200_20.jpg", 240)):
        assert abs(int(np.asarray(Image.open(folder / "imgs" / name)).mean()) - grey) < 3
    answer = json.loads((folder / "a report_layout_parsing.json").read_text("utf-8"))
    assert (answer["errorCode"], answer["errorMsg"], answer["logId"]) == (0, "Success", DOC)
    assert len(answer["result"]["layoutParsingResults"]) == 2
    assert answer["result"]["dataInfo"]["numPages"] == 3
    second = answer["result"]["layoutParsingResults"][1]
    assert "input_path" not in second["prunedResult"]
    (data,) = second["markdown"]["images"].values()
    assert base64.b64decode(data)[:3] == b"\xff\xd8\xff"


def test_an_image_has_no_page_number(stores: tuple[ObjectStore, ObjectStore]) -> None:
    folder = exported(stores, document(row(0, block("text", "x")), uri="s3://b/photo.tar.png", form="png"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "photo.tar.md",
        "photo.tar_layout_parsing.json",
        "photo.tar_res.json",
    ]
    saved = json.loads((folder / "photo.tar_res.json").read_text("utf-8"))
    assert (saved["page_index"], saved["page_count"]) == (None, None)


def test_restructured_pages_are_one_when_asked(stores: tuple[ObjectStore, ObjectStore]) -> None:
    pages = document(row(0, block("table", "t", html=table("a"))), row(1, block("table", "t", html=table("b"))))
    folder = exported(stores, pages, restructure=True, concatenate_pages=True)
    text = (folder / "a report.md").read_text("utf-8")
    assert (text.count("<table"), text.count("Plant")) == (1, 1)
    assert text.index(">a<") < text.index(">b<")
    (one,) = json.loads((folder / "a report_layout_parsing.json").read_text("utf-8"))["result"]["layoutParsingResults"]
    assert one["prunedResult"]["page_count"] == 2


@pytest.mark.parametrize(
    "uri", ["/a/../../etc/passwd", "/a/..", "/a/.", "x:/..\\..\\evil", "/a/\x00b\n.pdf", "/", "/a/" + "x" * 400]
)
def test_no_name_leaves_its_folder(uri: str) -> None:
    found = document(uri=uri)
    assert "/" not in found.folder
    assert "\\" not in found.folder
    assert found.folder not in (".", "..")
    assert not found.folder.startswith(".")
    assert found.folder.isprintable()
    assert len(found.folder) < 120
    assert found.folder.endswith(DOC[:12])


# -- tables alone ----------------------------------------------------------------------------------------------------


def test_spans_take_their_places() -> None:
    html = (
        "<table><tr><td rowspan=2>a</td><td colspan='2'>b</td></tr><tr><td>c</td><td>d</td></tr>"
        "<tr><td rowspan=99 colspan=x>e</td><td></td><td>f &amp; g<br>h</td></tr></table>"
    )
    assert grid(html) == [["a", "b", ""], ["", "c", "d"], ["e", "", "f & g h"]]
    assert grid("<table></table>") == []
    assert len(grid("<table><tr>" + "<td colspan=1000 rowspan=1000>x</td>" * 40 + "</tr></table>")[0]) <= 40_000


@settings(deadline=None)
@given(st.lists(st.lists(st.text("ab<>&\"'=|", max_size=4), min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_grid_survives(cells: list[list[str]]) -> None:
    from html import escape

    html = "<table>" + "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in line) + "</tr>" for line in cells) + "</table>"
    width = max(map(len, cells))
    assert grid(html) == [line + [""] * (width - len(line)) for line in cells]


def test_a_table_over_pages_is_one_and_none_is_lost() -> None:
    found = list(
        tables(
            document(
                row(0, block("text", "t"), block("table", "x", html=table("a"))),
                row(1, block("header", "h"), block("table", "x", html=table("b")), block("footer", "f")),
                row(2, block("table", "x", html=table("c")), block("text", "end"), block("table", "x", html=table("d"))),
                row(3, block("text", "between"), block("table", "x", html=table("e"))),
                row(5, block("table", "x", html=table("f"))),
            )
        )
    )
    assert [(t.page_index, t.pages, t.number, len(t.grid)) for t in found] == [
        (0, 3, 1, 4), (2, 1, 1, 2), (3, 1, 1, 2), (5, 1, 1, 2),
    ]  # fmt: skip
    assert [cells[0] for cells in found[0].grid] == ["Plant", "a", "b", "c"]


def test_forms(tmp_path: Path) -> None:
    import zipfile

    found = document(row(2, block("table", "x", html=table("=1+2", "@x", "-3.50", "007", "12.25"), confidence=0.5)))
    target = ObjectStore(str(tmp_path))
    for kind in (CsvWriter, JsonWriter, XlsxWriter):
        writer = kind(target)
        writer.write(found, list(tables(found)))
        writer.close()
    lines = list(csv.reader(io.StringIO((tmp_path / found.folder / "page-3-table-1.csv").read_text("utf-8"))))
    assert [line[0] for line in lines] == ["Plant", "=1+2", "@x", "-3.50", "007", "12.25"]
    (entry,) = list(csv.DictReader((tmp_path / "tables.csv").open(encoding="utf-8")))
    assert (entry["page"], entry["rows"], entry["columns"], entry["confidence"]) == ("3", "6", "2", "0.5")
    assert (tmp_path / entry["file"]).exists()
    (line,) = (tmp_path / f"{found.folder}.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["cells"] == lines
    with zipfile.ZipFile(tmp_path / f"{found.folder}.xlsx") as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
        strings = book.read("xl/sharedStrings.xml").decode()
    assert "<f>" not in sheet  # no formula
    assert "=1+2" in strings
    assert "007" in strings
    assert "<v>12.25</v>" in sheet
    assert "<v>-3.5</v>" in sheet


# -- as commands, on a run -------------------------------------------------------------------------------------------


def test_commands(tmp_path: Path) -> None:
    settings = [f"source.cache_dir={tmp_path / 'cache'}", "recognize.engine=echo", "layout.engine=none", "observe.report_pages=0"]
    archive(tmp_path / "in", {"a": 2, "b": 1})
    ingest(str(tmp_path / "in"), str(tmp_path / "out"), load(settings=settings), inline=True)
    run = CliRunner().invoke
    options = ["--set", settings[0]]
    done = run(app, ["export", str(tmp_path / "out"), str(tmp_path / "p"), "--as", "paddleocr", "--overlay", *options])
    assert done.exit_code == 0, done.output
    assert "2 documents, 3 pages" in done.output
    assert len(list((tmp_path / "p").rglob("*_res.json"))) == 3
    overlays = list((tmp_path / "p").rglob("*_layout_det_res.png"))
    assert len(overlays) == 3
    assert "Document a page 1" in next((tmp_path / "p").rglob("a_1.md")).read_text("utf-8")
    assert run(app, ["tables", str(tmp_path / "out"), str(tmp_path / "t"), "--as", "json"]).exit_code == 0
    one = run(app, ["export", str(tmp_path / "out"), str(tmp_path / "q"), "--document", "b.pdf"])
    assert "1 documents, 1 pages" in one.output
    with pytest.raises(ConfigError):
        run(app, ["export", str(tmp_path / "out"), str(tmp_path / "q"), "--document", "nowhere"], catch_exceptions=False)
