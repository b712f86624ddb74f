"""Every hostile file of the corpus ends in an allowed state, through Ray and the embedded engines; none stops the run."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
import yaml

import pagemill
from pipelines.store.audit import audit
from tests.conftest import ROOT, Driver

CORPUS = Path(os.environ.get("PAGEMILL_CORPUS") or ROOT.parent / "shared" / "corpus")
EXPECT = yaml.safe_load((Path(__file__).parent / "expect.yaml").read_text("utf-8"))
SETTINGS: dict[str, object] = {
    "recognize.engine": "embedded", "layout.engine": "embedded", "raster.dpi": 144, "raster.deadline_s": 10,
    "recognize.deadline_s": 60,
}  # fmt: skip

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not (CORPUS / "manifest.tsv").is_file(), reason="no corpus: set PAGEMILL_CORPUS to its folder"),
]


def manifest() -> dict[str, str]:
    with open(CORPUS / "manifest.tsv", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row["path"]: row["expect"] for row in rows if row["category"] == "hostile"}


def smoke() -> list[str]:
    lines = (CORPUS / "smoke.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("hostile/")]


def wrong(driver: Driver, paths: list[str], folder: Path, timeout: float) -> list[str]:
    """Reads these files; those whose states are not allowed, with what they were."""
    source, output = folder / "in", str(folder / "out")
    for path in paths:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CORPUS / path, source / path)
    code, out = driver.run(str(source), output, settings=SETTINGS, timeout=timeout)
    assert code == 3, out
    result = audit(output)
    assert result.ok, result.problems
    documents = {row["doc_id"]: row for row in pagemill.read(output, "documents").to_pylist()}
    states: dict[str, set[str]] = {doc_id: set() for doc_id in documents}
    for row in pagemill.read(output, "pages", columns=["doc_id", "state"]).to_pylist():
        states[row["doc_id"]].add(row["state"])
    found = []
    sources = {row["uri"].removeprefix(f"{source}/"): row["doc_id"] for row in pagemill.read(output, "sources").to_pylist()}
    for path, expect in manifest().items():
        if path in paths:
            document = documents[sources[path]]
            ended = states[sources[path]] or {document["state"]}
            allowed = EXPECT["files"].get(path, {}).get("states") or EXPECT["states"][expect]
            if not ended <= set(allowed):
                found.append(f"{path}: {sorted(ended)} {document['error_code'] or ''}, allowed for {expect!r}: {allowed}")
    return found


def test_every_expectation_is_mapped() -> None:
    assert set(manifest().values()) <= set(EXPECT["states"])
    assert set(EXPECT["files"]) <= set(manifest())


@pytest.mark.timeout(1200)
def test_the_smoke_set(driver: Driver, tmp_path: Path) -> None:
    assert wrong(driver, smoke(), tmp_path, 1000) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_hostile_files(driver: Driver, tmp_path: Path) -> None:
    assert wrong(driver, list(manifest()), tmp_path, 3000) == []
