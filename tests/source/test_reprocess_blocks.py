"""Single blocks read again: exactly these are asked, the rest of the page stays, whole pages where it cannot be otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pagemill
from pipelines.errors import ExitCode
from pipelines.ingest import Ended, ingest, preview, reprocess
from pipelines.output import open_existing
from pipelines.store.audit import audit
from pipelines.store.choosing import Choice
from pipelines.store.ledger import Ledger
from pipelines.store.records import record
from tests.builders import drawn_pdf, text_at
from tests.conftest import inline_config

TABLES = Choice(blocks="label = 'table' AND finish_reason = 'length'")


def config(output: Path, engine: str, **more: object) -> Any:
    given: dict[str, object] = {
        "recognize__engine": f"tests.engines:{engine}",
        "layout__engine": "tests.engines:Bands",
        "raster__dpi": 72,
    }
    given["recognize__ladder"] = "[]"  # what was cut stays cut
    return inline_config(output, **(given | more))


def blocks(output: Path) -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["page_index"], row["block_index"]): row for row in pagemill.read(str(output), "blocks").to_pylist()}


def asked(output: Path) -> list[str]:
    return Path(f"{output}-cache", "asked").read_text().split()


def again(output: Path, choice: Choice, engine: str = "Whole", **more: object) -> Ended:
    return reprocess(str(output), choice, config(output, engine, **more), inline=True)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    drawn = ["\n".join(text_at(20, y, f"page {page} at {y}") for y in (170, 100, 30)) for page in range(3)]
    (source / "a.pdf").write_bytes(drawn_pdf(drawn))
    assert ingest(str(source), str(tmp_path / "out"), config(tmp_path / "out", "Cut"), inline=True).exit_code == ExitCode.OK
    return tmp_path / "out"


def test_exactly_the_chosen_blocks(output: Path) -> None:
    before, pages = blocks(output), pagemill.read(str(output), "pages").to_pylist()
    found = preview(str(output), TABLES, config(output, "Whole"))
    assert (found.pages.total(), found.blocks, found.whole) == (3, 3, 0)
    choice = Choice(where="page_index > 0", blocks=TABLES.blocks)
    ended = again(output, choice)
    assert (ended.exit_code, ended.summary.pages.total()) == (ExitCode.OK, 2)
    assert asked(output) == ["table"] * 2
    after = blocks(output)
    assert after.keys() == before.keys()
    for (page, block), row in after.items():
        if page == 0:
            assert row == before[page, block]
        elif block == 1:
            assert (row["engine"], row["html"], row["finish_reason"]) == (
                "whole",
                "<table><tr><td>whole</td></tr></table>",
                "stop",
            )
            assert row["fingerprint"] == ended.summary.fingerprint
        else:
            unlike = {name for name in row if row[name] != before[page, block][name]}
            assert unlike <= {"revision", "state"}
            assert row["content"] == "cut read this"
    shown = pagemill.read(str(output), "pages").to_pylist()
    assert [row["state"] for row in shown] == ["degraded", "ok", "ok"]  # flags are those of what is there now
    assert [row["fingerprint"] for row in shown] == [row["fingerprint"] for row in pages]  # most of it was read with the old one
    assert all("<td>whole</td>" in row["markdown"] and "cut read this" in row["markdown"] for row in shown[1:])
    (document,) = pagemill.read(str(output), "documents").to_pylist()
    assert (output / document["markdown"]).read_text().count("<td>whole</td>") == 2
    assert preview(str(output), Choice("fingerprint <> current"), config(output, "Whole")).other == 3
    result = audit(str(output))
    assert result.ok, result.problems


def test_all_of_a_page_is_a_page_of_the_new_configuration(output: Path) -> None:
    ended = again(output, Choice(blocks="true"))
    assert sorted(asked(output)) == ["ocr"] * 6 + ["table"] * 3
    assert {row["fingerprint"] for row in pagemill.read(str(output), "pages").to_pylist()} == {ended.summary.fingerprint}
    assert {row["fingerprint"] for row in blocks(output).values()} == {None}


def test_pages_that_are_laid_out_otherwise_are_read_whole(output: Path) -> None:
    finer = {"raster__dpi": 96}
    assert preview(str(output), TABLES, config(output, "Whole", **finer)).whole == 3
    ended = again(output, TABLES, **finer)
    assert sorted(asked(output)) == ["ocr"] * 6 + ["table"] * 3
    assert {row["fingerprint"] for row in pagemill.read(str(output), "pages").to_pylist()} == {ended.summary.fingerprint}
    whole_pages = inline_config(output, raster__dpi=72, layout__engine="tests.engines:Bands")  # the echo reads whole pages
    assert preview(str(output), Choice(blocks="label = 'table'"), whole_pages).whole == 3


def test_an_interrupted_one_still_knows_its_blocks(output: Path) -> None:
    ledger = Ledger(open_existing(str(output), config(output, "Whole").store))
    ledger.claim("killed", 1, 60)
    ((doc_id, print_),) = {(row["doc_id"], row["fingerprint"]) for row in pagemill.read(str(output), "pages").to_pylist()}
    opened = {"doc_id": doc_id, "revision": 2, "pages": [0, 2], "blocks": [[1], None], "tries": 1, "run_id": "killed"}
    ledger.append([record("revision", fingerprint=print_, **opened)])
    ledger.release()
    ended = ingest(str(output.parent / "in"), str(output), config(output, "Whole"), inline=True)
    assert ended.exit_code == ExitCode.OK
    assert sorted(asked(output)) == ["ocr", "ocr", "table", "table"]  # a block of page 0, the whole of page 2
    assert [row["revision"] for row in pagemill.read(str(output), "pages").to_pylist()] == [2, 1, 2]
