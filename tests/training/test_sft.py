"""ERNIEKit's SFT format: what is accepted, and every problem by its line."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines.errors import ConfigError
from training import answers, sft


def png(width: int = 40, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(out, "PNG")
    return out.getvalue()


def sample(prompt: str = "OCR:", answer: str = "abc", url: str = "a.png", **changes: Any) -> dict[str, Any]:
    return {
        "image_info": [{"image_url": url, "matched_text_index": 0}],
        "text_info": [{"text": prompt, "tag": "mask"}, {"text": answer, "tag": "no_mask"}],
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "thin.png").write_bytes(png(900, 4))
    (tmp_path / "not.png").write_bytes(b"no image")
    return tmp_path


def write(folder: Path, *lines: Any) -> Path:
    file = folder / "train.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return file


def test_every_task_is_read(folder: Path) -> None:
    data = "data:image/png;base64," + base64.b64encode(png()).decode()
    file = write(
        folder,
        sample(),
        "",
        sample("Table Recognition:", "<fcel>a<lcel><nl><ucel><ecel><nl>"),
        sample("Formula Recognition:", "\\[ \\frac{a}{b} \\{ \\left( x \\right) \\\\[2pt] \\]", url=data),
        sample("Chart Recognition:", "year | sum\n2024 | 3\n2025 | 4"),
        sample("Extract the total:", "{free text"),
    )
    found = sft.check(file)
    assert [str(p) for p in found.problems] == []
    assert found.tasks == {"ocr": 1, "table": 1, "formula": 1, "chart": 1, "other": 1}
    assert [record.line for record in found.records] == [1, 3, 4, 5, 6]


def test_turns_with_images_of_their_own(folder: Path) -> None:
    texts = [("OCR:", "mask"), ("one", "no_mask"), ("Table Recognition:", "mask"), ("<fcel>a<nl>", "no_mask")]
    line = {
        "image_info": [{"image_url": "a.png", "matched_text_index": 0}, {"image_url": "a.png", "matched_text_index": 2}],
        "text_info": [{"text": text, "tag": tag} for text, tag in texts],
    }
    (record,) = sft.check(write(folder, line)).records
    assert [(turn.task, turn.images, turn.answer) for turn in record.turns] == [
        ("ocr", ("a.png",), "one"),
        ("table", ("a.png",), "<fcel>a<nl>"),
    ]
    assert json.loads(sft.line_of(record.turns)) == line  # what is written is read again


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object, found list"),
        ({"text_info": []}, "text_info: expected a list"),
        (
            sample(text_info=[{"text": 3, "tag": "mask"}, {"text": "a", "tag": "no_mask"}]),
            r"text_info\[0\].text: expected a string",
        ),
        (
            sample(text_info=[{"text": "OCR:", "tag": "mask"}, {"text": "a", "tag": "nomask"}]),
            r"text_info\[1\].tag: .*did you mean no_mask\?",
        ),
        (sample(text_info=[{"text": "OCR:", "tag": "mask"}]), "a question without an answer"),
        (sample(text_info=[{"text": "a", "tag": "no_mask"}], image_info=[]), "an answer without a question"),
        (sample(text_info=[{"text": "OCR:", "tag": "mask"}] * 2 + [{"text": "a", "tag": "no_mask"}]), "two questions in a row"),
        (sample(image_info=[{"image_url": "a.png", "matched_text_index": 2}]), "expected 0 to 1, found 2"),
        (sample(image_info=[{"image_url": "a.png", "matched_text_index": 1}]), "1 is an answer"),
        (sample(image_info=[{"image_url": "a.png", "matched_text_index": True}]), "expected 0 to 1, found True"),
        (sample(image_info=[{"matched_text_index": 0}]), r"image_info\[0\].image_url: expected"),
        (sample(image_info=None), "asks about an image"),
        (sample(answer="  "), "an empty answer"),
        (sample(url="gone.png"), "gone.png: .*No such file"),
        (sample(url="not.png"), "not.png: cannot identify"),
        (sample(url="thin.png"), "thin.png: a crop whose sides are as 1 to 225"),
        (sample(url="data:image/png;base64,###"), "not base64"),
        (sample("Table Recognition:", "<table><tr><td>a</td></tr></table>"), "a table is OTSL .* found '<table'"),
        (sample("Table Recognition:", "<fcel>a<fcel>b<nl><fcel>c<nl>"), "row 2 has 1 cells, row 1 has 2"),
        (sample("Table Recognition:", "<lcel><fcel>a<nl>"), "row 1 begins with <lcel>"),
        (sample("Table Recognition:", "<fcel>a<ucel><nl>"), "row 1 has <ucel>"),
        (sample("Table Recognition:", "<fcel>a"), "ends in <nl>"),
        (sample("Formula Recognition:", "\\[ \\frac{a}{b \\]"), "1 of its { are never closed"),
        (sample("Formula Recognition:", "\\[ \\left( a \\]"), r"1 \\left and 0 \\right"),
        (sample("Chart Recognition:", "a|b\n1|2|3"), r"rows have \[2, 3\] cells"),
    ],
)
def test_a_problem_names_its_line_and_field(folder: Path, line: Any, words: str) -> None:
    found = sft.check(write(folder, sample(), line, sample()))
    assert len(found.problems) == 1
    with pytest.raises(AssertionError, match=f"line 2: .*{words}"):
        raise AssertionError(str(found.problems[0]))
    assert len(found.records) == 2  # the others stand


def test_all_problems_of_a_line_are_named(folder: Path) -> None:
    found = sft.check(write(folder, sample(text_info=[{"text": 1, "tag": "x"}], image_info=[{"matched_text_index": 9}])))
    assert len(found.problems) >= 4


def test_an_empty_file_and_a_missing_one(folder: Path) -> None:
    assert [str(p) for p in sft.check(write(folder)).problems] == ["line 1: the file is empty"]
    with pytest.raises(ConfigError, match=r"gone\.jsonl: No such file"):
        sft.check(folder / "gone.jsonl")


@pytest.mark.parametrize("text", ["\\{ a \\}", "a \\\\ b", "\\leftarrow x", "x^{2}_{i}", "\\begin{matrix} a \\end{matrix}"])
def test_formulas_that_close(text: str) -> None:
    assert answers.latex(text) is None
