"""Nothing that comes in can run code: no manifest, no configuration, no document, no model, no output of somebody else's."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.config import load
from pipelines.errors import ConfigError, DamagedDocument, UnsupportedFormat
from pipelines.raster.image_engine import ImageRasterizer
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.raster.sniff import sniff
from tests.builders import archive
from tests.conftest import ROOT, inline
from tests.hostile import TEXT, one_page, stream

SOURCES = [path for room in ("pipelines", "jobs", "pagemill", "training") for path in sorted((ROOT / room).rglob("*.py"))]
BETWEEN_OUR_ACTORS = {"pipelines/cluster/graph.py"}  # what one process of a run hands to another
WEIGHTS = ("ForObjectDetection.from_pretrained", "ForConditionalGeneration.from_pretrained", "Model.from_pretrained")


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_no_source_file_can_turn_data_into_code() -> None:
    found, pickles = [], set()
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        for called, call in calls(ast.parse(path.read_text("utf-8"))):
            given = keywords(call)
            bad = (
                called in ("eval", "exec", "__import__", "os.system", "os.popen", "marshal.loads", "shelve.open", "yaml.load",
                           "yaml.unsafe_load", "yaml.full_load", "joblib.load", "runpy.run_path")
                or given.get("shell") == "True"
                or given.get("allow_pickle") == "True"
                or given.get("trust_remote_code", "False") != "False"
                or (called == "torch.load" and given.get("weights_only") != "True")
                or (called.lower().endswith("image.open") and "formats" not in given)  # Pillow hands PostScript to Ghostscript
                or (called.endswith(WEIGHTS) and given.get("use_safetensors") != "True")
            )  # fmt: skip
            if bad:
                found.append(f"{name}:{call.lineno}: {called}")
            if called in ("pickle.loads", "pickle.load"):
                pickles.add(name)
    assert found == []
    assert pickles == BETWEEN_OUR_ACTORS


def test_a_parquet_manifest_with_a_pickled_column_runs_nothing(tmp_path: Path) -> None:
    """Ray Data registers an Arrow type whose values are unpickled by whoever reads a file that names it."""
    marker, manifest = tmp_path / "ran", tmp_path / "manifest.parquet"
    named = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}
    column = pa.array([pickle.dumps(Runs(marker))], pa.large_binary())
    pq.write_table(pa.table([column], pa.schema([pa.field("uri", pa.large_binary(), metadata=named)])), manifest)
    read = f"from pipelines.source.manifest import manifest_rows as m; print(len(list(m('m.parquet', {str(manifest)!r}))))"
    for first, runs in (
        ("import ray.data", True),
        ("import pipelines.cluster.session", False),
        ("import pipelines.cluster.graph", False),
    ):
        out = subprocess.run([sys.executable, "-c", f"{first}\n{read}"], cwd=ROOT, text=True, capture_output=True, check=False)
        assert marker.exists() == runs, (first, out)
        if runs:
            marker.rmdir()


def test_yaml_is_data(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = f"!!python/object/apply:os.mkdir [{str(marker)!r}]"
    conf = tmp_path / "evil.yaml"
    conf.write_text(f"raster: {{dpi: {evil}}}\n")
    for attempt in ({"files": [conf]}, {"settings": [f"raster.dpi={evil}"]}):
        with pytest.raises(ConfigError, match="not valid YAML"):
            load(**attempt)  # type: ignore[arg-type]
    assert not marker.exists()


def test_an_output_of_somebody_else_names_no_code(tmp_path: Path) -> None:
    """Its stored configurations are read for how results look, never for which engine to import."""
    source, output = archive(tmp_path / "in", {"a": 1}), tmp_path / "out"
    inline(source, output)
    marker = tmp_path / "ran"
    (tmp_path / "evil_reader.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Reader: name = 'x'\n")
    for file in output.glob("runs/*/config.yaml"):
        told = yaml.safe_load(file.read_text())
        told["recognize"]["engine"] = told["layout"]["engine"] = "evil_reader:Reader"
        told["raster"]["engine"] = "evil_reader:Reader"
        file.write_text(yaml.safe_dump(told))
    report = next(output.glob("runs/*/report.json"))
    report.write_text(report.read_text().replace('"raster": "pypdfium2"', '"raster": "evil_reader:Reader"'))
    commands = [["export", str(output), str(tmp_path / "exported")], ["show", str(output), "a.pdf"],
                ["report", str(output), "--to", str(tmp_path / "r.html")]]  # fmt: skip
    script = (
        f"import sys\nfrom jobs.cli import main\nfor command in {commands}:\n"
        "    sys.argv = ['pagemill', *command]\n    try: main()\n    except SystemExit as end: assert not end.code, command\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done
    assert not marker.exists()


ACTIVE = (
    b"/OpenAction << /S /Launch /F (/bin/sh) /Unix << /F (/bin/mkdir) /P (%s) >> >> "
    b"/AA << /WC << /S /JavaScript /JS (app.launchURL\\('%s'\\)) >> >> /Names << /JavaScript << /Names [(a) << /S /JavaScript "
    b"/JS (this.exportDataObject\\(1\\)) >>] >> >>"
)


@pytest.mark.parametrize("engine", ["pymupdf", "pypdfium2"])
def test_what_a_document_asks_for_is_not_done(tmp_path: Path, engine: str) -> None:
    """Actions, scripts, and streams that lie in another file: a page is drawn, and nothing else happens."""
    marker, secret = tmp_path / "ran", tmp_path / "secret.txt"
    secret.write_bytes(b"BT /F1 12 Tf 20 100 Td (words of another file) Tj ET")
    action = str(marker).encode()
    elsewhere = b"/F << /Type /Filespec /F (%s) /UF (%s) >>" % (str(secret).encode(), str(secret).encode())
    for name, data in (
        ("active.pdf", one_page(catalogue=ACTIVE % (action, action))),
        ("elsewhere.pdf", one_page(content=TEXT, content_extra=elsewhere)),
        ("empty-elsewhere.pdf", one_page(more={4: stream(b"", elsewhere)})),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        with IsolatedRasterizer(engine, 60, 1024) as rasterizer:
            page = rasterizer.render(str(path), [], 0, 36, 25)
        words = {word.text for word in (*page.words, *page.hidden_words)}
        assert "another" not in words
        assert words == ({"plain", "words", "on", "a", "page"} if name == "active.pdf" else words)
    assert not marker.exists()


@pytest.mark.parametrize(
    "head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", b"GIF89a" + b"\0" * 30, b"8BPS\0\1" + b"\0" * 30,
             b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"PK\3\4" + b"\0" * 30, b"BM" + b"\0" * 60],
    ids=["eps", "gif", "psd", "svg", "zip", "bmp"],
)  # fmt: skip
def test_formats_that_call_other_programs_are_not_opened(tmp_path: Path, head: bytes) -> None:
    """Pillow hands PostScript to Ghostscript; whatever the file is called, it is not asked."""
    path = tmp_path / "scan.png"
    path.write_bytes(head)
    with pytest.raises(UnsupportedFormat):
        sniff(path)
    with pytest.raises(DamagedDocument):
        ImageRasterizer().open(str(path), [])
