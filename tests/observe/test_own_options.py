"""Pictures and capsules of documents with options and passwords of their own, by a manifest: used, and written nowhere."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from pipelines.errors import ExitCode
from pipelines.ingest import ingest
from pipelines.observe.capsule import open_capsule
from pipelines.observe.recall import recall
from pipelines.schema import RasterPage
from pipelines.store.reading import Output
from tests.builders import locked_pdf, text_pdf
from tests.conftest import Call, inline_config
from tests.source.test_manifest import written

PASSWORD = "zqSec-opens"
ENGINES = {"recognize__engine": "tests.engines:Asked", "layout__engine": "tests.engines:Bands", "raster__dpi": 72}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A locked document that is asked at another temperature, and an open one."""
    text_pdf(tmp_path / "in" / "open.pdf", 1)
    (tmp_path / "in" / "locked.pdf").write_bytes(locked_pdf(["locked words"], PASSWORD))
    columns = {"uri": ["open.pdf", "locked.pdf"], "password": [None, PASSWORD], "temperature": [None, 0.5]}
    return written(tmp_path / "in" / "m.csv", columns)


@pytest.fixture
def output(manifest: Path, tmp_path: Path) -> Path:
    output = tmp_path / "out"
    ended = ingest(str(manifest), str(output), inline_config(output, observe__report_pages=4, **ENGINES), inline=True)
    assert ended.exit_code == ExitCode.OK, ended.summary.message
    return output


def told(tmp_path: Path) -> str:
    return f"--set=source.cache_dir={tmp_path}/out-cache"


def nowhere(*folders: Path) -> None:
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        assert b"zqSec" not in path.read_bytes(), path


def test_the_report_of_a_run_has_their_pictures(call: Call, output: Path, manifest: Path, tmp_path: Path) -> None:
    (html,) = [path.read_text() for path in output.glob("runs/*/report.html")]
    assert html.count("data:image/webp") == 4  # two pages, each with its small copy
    shown = tmp_path / "shown"
    for option, pictures in (((), 0), (("--manifest", manifest), 2)):
        code, out = call("report", output, "--page", "locked.pdf:1", "--to", shown / "r.html", told(tmp_path), *option)
        assert code == 0, out
        assert (shown / "r.html").read_text().count("data:image/webp") == pictures
    code, out = call("report", output, "--manifest", output / "pagemill.json", told(tmp_path), "--to", shown / "no.html")
    assert (code, "a manifest ends in" in out) == (ExitCode.BAD_CONFIG, True), out
    nowhere(output, shown)


def test_a_capsule_asks_what_was_asked(call: Call, output: Path, manifest: Path, tmp_path: Path) -> None:
    file = tmp_path / "capsules" / "c.zip"
    code, out = call("capsule", output, "locked.pdf:1", "--to", file, told(tmp_path))
    assert (code, "no picture" in out) == (0, True), out
    code, out = call("capsule", output, "locked.pdf:1", "--to", file, told(tmp_path), "--manifest", manifest)
    assert code == 0, out
    capsule = open_capsule(file)
    assert capsule.page is not None
    assert {question["sampling"]["temperature"] for question in capsule.about["questions"]} == {0.5}
    assert capsule.settings()["paddleocr_vl"]["temperature"] == 0.5
    with zipfile.ZipFile(file) as held:
        assert not [name for name in held.namelist() if b"zqSec" in held.read(name)]
    engines = ["--set=recognize.engine=tests.engines:Asked", "--set=layout.engine=tests.engines:Bands"]
    code, out = call("replay", file, "--here", *engines)
    assert (code, "ENCRYPTED" in out) == (ExitCode.SOME_FAILED, True), out
    code, out = call("replay", file, "--here", *engines, "--manifest", manifest)
    assert (code, out.splitlines()[-1]) == (0, "state    ok"), out
    assert "text     the same as stored" in out  # "0.5 1003520": the reader says what it was asked
    assert "zqSec" not in out
    code, out = call("capsule", output, "open.pdf:1", "--to", file, told(tmp_path))
    assert code == 0, out
    assert {question["sampling"]["temperature"] for question in open_capsule(file).about["questions"]} == {0.0}


def test_an_export_has_their_overlays(call: Call, output: Path, manifest: Path, tmp_path: Path) -> None:
    target = tmp_path / "files"
    for option, overlays in (((), 1), (("--manifest", manifest), 2)):
        code, out = call("export", output, target, "--overlay", told(tmp_path), *option)
        assert code == 0, out
        assert len(list(target.rglob("*_layout_det_res.png"))) == overlays, out
    nowhere(target)


def test_options_of_another_version_cost_the_questions_not_the_capsule(call: Call, output: Path, tmp_path: Path) -> None:
    (config,) = output.glob("runs/*/config.yaml")
    config.write_text("paddleocr_vl: {temperature: hot, of_tomorrow: 1}\n")
    code, out = call("capsule", output, "open.pdf:1", "--to", tmp_path / "c.zip", told(tmp_path))
    assert (code, "with the present options" in out) == (0, True), out
    assert open_capsule(tmp_path / "c.zip").page is not None


def test_a_page_that_was_turned_officially_is_turned_so_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the row of the manifest asks for it; officially a turned page is cut off half a pixel, else it is not."""
    from pipelines.layout.orientation import Orientation

    monkeypatch.setattr(Orientation, "angle", lambda self, pixels: 90)
    text_pdf(tmp_path / "in" / "a.pdf", 1)
    path = written(tmp_path / "in" / "m.csv", {"uri": ["a.pdf"], "use_doc_orientation_classify": [True]})
    config = inline_config(tmp_path / "out", observe__report_pages=1, paddleocr_vl__strict_parity=True, **ENGINES)
    strict: list[bool] = []

    def turned(page: RasterPage, angle: int, how: bool = False) -> RasterPage:
        strict.append(how)
        return page

    monkeypatch.setattr("pipelines.observe.pages.turned", turned)
    ingest(str(path), str(tmp_path / "out"), config, inline=True)
    with Output(str(tmp_path / "out"), parts=False) as opened:
        recall(opened, config, None, ["a.pdf:1"])
    assert strict == [True, True]


def test_a_wrong_password_costs_the_picture(call: Call, output: Path, manifest: Path, tmp_path: Path) -> None:
    written(manifest, {"uri": ["locked.pdf"], "password": ["zqSec-other"]})
    target = tmp_path / "r.html"
    code, out = call("report", output, "--page", "locked.pdf:1", "--to", target, told(tmp_path), "--manifest", manifest)
    assert code == 0, out
    assert "No picture" in target.read_text()
    nowhere(output, target.parent / "capsules")
    assert "zqSec" not in target.read_text()
