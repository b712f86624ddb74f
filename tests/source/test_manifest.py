"""Manifests made elsewhere: pages, passwords and options row by row, and words for what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pagemill
from pipelines.errors import BadManifest, ConfigError, ExitCode
from pipelines.ingest import Ended, ingest, preview, reprocess
from pipelines.options import canonical, with_options
from pipelines.source.manifest import Row, manifest_rows, page_indices
from pipelines.store.audit import audit
from pipelines.store.choosing import Choice
from tests.builders import archive, drawn_pdf, locked_pdf, text_at
from tests.conftest import inline, inline_config

Config = Any


def written(path: Path, columns: dict[str, list[Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = [
            ",".join(columns),
            *(",".join("" if v is None else f'"{v}"' for v in row) for row in zip(*columns.values(), strict=True)),
        ]
        path.write_text("\n".join(rows) + "\n")
    return path


def rows(path: Path, config: Config | None = None) -> list[Row]:
    return list(manifest_rows(str(path), str(path), config or inline_config("o")))


def pages(output: Path) -> dict[str, list[int]]:
    names = {row["doc_id"]: Path(row["uris"][0]).stem for row in pagemill.read(str(output), "documents").to_pylist()}
    found: dict[str, list[int]] = {}
    for row in pagemill.read(str(output), "pages").to_pylist():
        found.setdefault(names[row["doc_id"]], []).append(row["page_index"])
    return found


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_columns(tmp_path: Path, name: str) -> None:
    columns: dict[str, list[Any]] = {
        "title": ["x", "y", "z"], "url": ["a.pdf", "b.pdf", "c.pdf"], "pages": ["1-3, 7", None, "12-"],
        "password": [None, "1234", None], "maxPixels": [None, 200000, None], "use_chart_recognition": [True, None, None],
        "layoutThreshold": [None, None, '{"22": 0.4}'], "paddleocr_vl.top_p": [None, 0.9, None],
    }  # fmt: skip
    if name.endswith("csv"):
        columns["layoutThreshold"] = [None, None, None]
    first, second, third = rows(written(tmp_path / name, columns))
    assert (first.link, first.pages, first.password, first.options) == ("a.pdf", "1-3,7", None, '{"use_chart_recognition":true}')
    assert (second.password, second.options) == ("1234", '{"max_pixels":200000,"top_p":0.9}')
    assert third.pages == "12-"
    assert name.endswith("csv") or third.options == '{"layout_threshold":{"22":0.4}}'


def test_rows_of_one_object_are_one(tmp_path: Path) -> None:
    path = written(tmp_path / "m.csv", {"uri": ["a", "a", "b", "b", "a"], "pages": ["1-2", "5", "3", None, "9"]})
    assert [(row.link, row.pages) for row in rows(path)] == [("a", "1-2,5"), ("b", ""), ("a", "9")]
    assert page_indices("1-2,5", 9) == (0, 1, 4)
    assert page_indices("4-,2", 5) == (1, 3, 4)
    assert page_indices("7", 5) == ()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"uri": ["a"], "pages": ["1-99999999"]}, r"row 1: pages: expected ranges .*, of at most 7 digits \(got '1-99999999'\)"),
        ({"uri": ["a", "b"], "pages": ["1", "3-1"]}, r"row 2: pages: expected ranges .*'3-1'"),
        ({"uri": ["a"], "pages": ["0-2"]}, "row 1: pages"),
        ({"uri": ["a"], "pages": ["all"]}, "row 1: pages"),
        ({"uri": ["a", "b", "c"], "temperature": [0.1, -1.0, "hot"]}, r"row 2: temperature: .*row 3: temperature: "),
        ({"uri": ["a"], "prompt_label": ["poem"]}, "row 1: prompt_label"),
        ({"uri": ["a"], "min_pixels": [2_000_000]}, "row 1: .*min_pixels"),
        ({"uri": ["a"], "raster.dpi": [300]}, "column raster.dpi can only be set for a whole run"),
        ({"uri": ["a"], "pipelineVersion": ["v1"]}, "column pipelineVersion can only be set for a whole run"),
        ({"uri": ["a"], "temprature": [0.1]}, "unknown column temprature; did you mean temperature"),
        ({"uri": ["a"], "topP": [0.1], "top_p": [0.2]}, "column top_p is there twice"),
        ({"name": ["a"]}, "needs a column named uri"),
    ],
)
def test_what_cannot_be_is_said_before_anything_begins(tmp_path: Path, columns: dict[str, list[Any]], words: str) -> None:
    path = written(tmp_path / "m.csv", columns)
    with pytest.raises(BadManifest, match=words) as caught:
        ingest(str(path), str(tmp_path / "out"), inline_config(tmp_path / "out"), inline=True)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.BAD_CONFIG, "BAD_MANIFEST")
    assert not (tmp_path / "out").exists()


def test_options_that_an_engine_is_not_set_up_for() -> None:
    model = inline_config("o", recognize__engine="vllm", layout__engine="embedded")
    for given in ({"max_pixels": 2_000_000}, {"max_new_tokens": 9000}, {"vlm_extra_args": {"table_max_pixels": 2_000_000}}):
        with pytest.raises(ConfigError, match=f"{next(reversed(given))}|table_max_pixels"):
            canonical(model, given)
    with pytest.raises(ConfigError, match="prompt_label: is for pages without layout"):
        canonical(model, {"prompt_label": "table"})
    assert with_options(model, canonical(model, {"max_pixels": 500_000})).paddleocr_vl.max_pixels == 500_000


def test_page_ranges_count_as_asked(tmp_path: Path) -> None:
    archive(tmp_path / "in", {"a": 6, "b": 4, "c": 2})
    output = tmp_path / "out"
    path = written(tmp_path / "in" / "m.csv", {"uri": ["a.pdf", "b.pdf", "c.pdf", "a.pdf"], "pages": ["2-3", None, "9", "6-"]})
    ended = inline(path, output)
    assert pages(output) == {"a": [1, 2, 5], "b": [0, 1, 2, 3]}  # rows of one object are one
    assert {failure.code for failure in ended.summary.failures} == {"PAGES_OUT_OF_RANGE"}
    assert ended.exit_code == ExitCode.SOME_FAILED
    result = audit(str(output))
    assert (result.ok, result.pages, result.left_out, result.problems) == (True, 7, 3, [])

    path = written(tmp_path / "in" / "m.csv", {"uri": ["a.pdf", "b.pdf", "c.pdf"], "pages": ["1-3", "1", "2"]})
    ended = inline(path, output)
    assert ended.exit_code == ExitCode.OK
    assert ended.summary.pages.total() == 2  # page 1 of a, page 2 of c; b has more than it asks for
    assert pages(output) == {"a": [0, 1, 2, 5], "b": [0, 1, 2, 3], "c": [1]}
    assert inline(path, output).summary.status == "nothing_to_do"
    assert inline(tmp_path / "in", output).summary.pages.total() == 3  # the folder asks for all of each
    result = audit(str(output))
    assert (result.ok, result.pages, result.left_out) == (True, 12, 0)


def test_passwords_open_and_are_nowhere(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, password in (("one", "correct-horse"), ("two", "battery-staple"), ("wrong", "unguessed")):
        (folder / f"{name}.pdf").write_bytes(locked_pdf([f"{name} {page}" for page in range(2)], password))
    passwords = ["correct-horse", "battery-staple", "another-guess"]
    uris = [str(folder / f"{name}.pdf") for name in ("one", "two", "wrong")]
    path = written(tmp_path / "m.parquet", {"uri": uris, "password": passwords})
    ended = inline(path, output)
    assert pages(output) == {"one": [0, 1], "two": [0, 1]}
    assert {failure.code for failure in ended.summary.failures} == {"ENCRYPTED"}
    stored = b"".join(file.read_bytes() for file in output.rglob("*") if file.is_file())
    for parquet in output.rglob("*.parquet"):
        stored += json.dumps(pq.read_table(parquet).to_pylist(), default=str).encode()
    assert b"/in/one.pdf" in stored
    assert not [password for password in passwords if password.encode() in stored]


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., Ended]:
    """Three documents whose middle band is a table, read by a model that says what it was asked."""
    drawn = ["\n".join(text_at(20, y, f"at {y}") for y in (170, 100, 30))]
    (tmp_path / "in").mkdir()
    for number, name in enumerate("abc"):
        (tmp_path / "in" / f"{name}.pdf").write_bytes(drawn_pdf(drawn, extra=b"%% %d\n" % number))

    def read(columns: dict[str, list[Any]], **more: object) -> Ended:
        path = written(tmp_path / "in" / "m.csv", {"uri": ["a.pdf", "b.pdf", "c.pdf"], **columns})
        return ingest(str(path), str(tmp_path / "out"), config(tmp_path / "out", **more), inline=True)

    return read


def config(output: Path, **more: object) -> Config:
    engines = {"recognize__engine": "tests.engines:Asked", "layout__engine": "tests.engines:Bands"}
    given: dict[str, object] = {**engines, "raster__dpi": 72}
    return inline_config(output, **(given | more))


def said(output: Path) -> dict[str, str]:
    names = {row["doc_id"]: Path(row["uris"][0]).stem for row in pagemill.read(str(output), "documents").to_pylist()}
    rows = pagemill.read(str(output), "blocks").to_pylist()
    return {names[row["doc_id"]]: row["content"] for row in rows if row["block_index"] == 0}


def test_each_document_is_read_with_its_options(options: Callable[..., Ended], tmp_path: Path) -> None:
    output = tmp_path / "out"
    ended = options({"temperature": [0.5, None, None], "maxPixels": [None, 200000, None]})
    assert ended.exit_code == ExitCode.OK
    assert said(output) == {"a": "0.5 1003520", "b": "0.0 200000", "c": "0.0 1003520"}
    documents = {Path(row["uris"][0]).stem: row for row in pagemill.read(str(output), "documents").to_pylist()}
    assert [documents[name]["options"] for name in "abc"] == ['{"temperature":0.5}', '{"max_pixels":200000}', None]
    prints = {row["doc_id"]: row["fingerprint"] for row in pagemill.read(str(output), "pages").to_pylist()}
    assert [documents[name]["fingerprint"] for name in "abc"] == [prints[documents[name]["doc_id"]] for name in "abc"]
    assert len(set(prints.values())) == 3
    assert prints[documents["c"]["doc_id"]] == ended.summary.fingerprint

    # the same as a run whose configuration says so
    hot = config(tmp_path / "alone", paddleocr_vl__temperature=0.5)
    alone = ingest(str(tmp_path / "in" / "a.pdf"), str(tmp_path / "alone"), hot, inline=True)
    assert alone.summary.fingerprint == prints[documents["a"]["doc_id"]]

    # they stay with the document: nothing is another configuration's, and what is read again has them
    assert preview(str(output), Choice("fingerprint <> current"), config(output)).pages.total() == 0
    assert (
        preview(str(output), Choice("fingerprint <> current"), config(output, paddleocr_vl__temperature=0.9)).pages.total() == 2
    )
    again = reprocess(str(output), Choice("true"), config(output, paddleocr_vl__temperature=0.9), inline=True)
    assert again.exit_code == ExitCode.OK
    assert said(output) == {"a": "0.5 1003520", "b": "0.9 200000", "c": "0.9 1003520"}
    assert options({"temperature": [0.7, None, None]}).summary.status == "nothing_to_do"  # done is done


def test_what_is_asked_follows_the_row(options: Callable[..., Ended], tmp_path: Path) -> None:
    options({"promptLabel": ["table", "formula", None]}, layout__engine="none")
    names = {row["doc_id"]: Path(row["uris"][0]).stem for row in pagemill.read(str(tmp_path / "out"), "documents").to_pylist()}
    labels = {names[row["doc_id"]]: row["label"] for row in pagemill.read(str(tmp_path / "out"), "blocks").to_pylist()}
    assert labels == {"a": "table", "b": "formula", "c": "text"}


def test_one_object_has_the_options_of_its_first_row(options: Callable[..., Ended], tmp_path: Path) -> None:
    same = {"uri": ["a.pdf", "b.pdf", "a.pdf"], "temperature": [0.5, 0.6, 0.7]}
    ended = options(same)
    assert said(tmp_path / "out") == {"a": "0.5 1003520", "b": "0.6 1003520"}
    assert "1 rows ask for other pages or options" in ended.summary.message
    assert ended.exit_code == ExitCode.OK
