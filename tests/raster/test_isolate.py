"""The child process: what crashes, hangs or swells costs one call; what comes back is what was drawn."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pymupdf
import pytest
from PIL import Image

from pipelines.config import load
from pipelines.errors import (
    DamagedDocument,
    Encrypted,
    HtmlPage,
    PageCrash,
    PagemillError,
    PageTimeout,
    UnsupportedFormat,
)
from pipelines.raster.budget import DocumentBudget
from pipelines.raster.isolate import IsolatedRasterizer
from pipelines.raster.rasterize import Rasterize, is_blank
from pipelines.schema import Span
from pipelines.stages import begin
from tests.builders import pdf_bytes, text_pdf
from tests.hostile import billion_laughs, kinds

ENGINES = ("pymupdf", "pypdfium2")


@pytest.fixture(params=ENGINES, scope="module")
def rasterizer(request: pytest.FixtureRequest) -> Iterator[IsolatedRasterizer]:
    with IsolatedRasterizer(request.param, 8, 1024) as made:
        yield made


def write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_a_page_comes_back_as_drawn(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    path = str(text_pdf(tmp_path / "a.pdf", 3, "a"))
    assert rasterizer.probe(path, []).page_count == 3
    page = rasterizer.render(path, [], 2, 144, 25)
    assert page.pixels.shape == (400, 600, 3)
    assert (page.width_pt, page.height_pt) == (300, 200)
    assert [word.text for word in page.words][:4] == ["Document", "a", "page", "2"]
    assert not page.flags
    box = page.words[0].box.scaled(page.scale)
    ink = page.pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)]
    assert ink.min() < 100
    page.pixels[:] = 0  # ours: writable, and the next page is not touched by it
    assert rasterizer.render(path, [], 2, 144, 25).pixels.max() == 255


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_words_of_a_rotated_page_lie_on_their_ink(rasterizer: IsolatedRasterizer, tmp_path: Path, turn: int) -> None:
    document = pymupdf.open("pdf", pdf_bytes(["Rotated words stand here"]))
    document[0].set_rotation(turn)
    path = write(tmp_path / "r.pdf", document.tobytes())
    page = rasterizer.render(path, [], 0, 144, 25)
    assert len(page.words) == 4
    covered = np.zeros(page.pixels.shape[:2], bool)
    for word in page.words:
        box = word.box.scaled(page.scale)
        covered[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    dark = page.pixels[..., 0] < 128
    assert dark.any()
    assert not (dark & ~covered).any()


def test_a_killed_child_costs_one_call(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    laughs = write(tmp_path / "l.pdf", billion_laughs(30))
    good = str(text_pdf(tmp_path / "g.pdf", 1))
    rasterizer.probe(good, [])
    child = rasterizer.child_pid
    assert child is not None
    threading.Timer(1.0, os.kill, (child, signal.SIGKILL)).start()
    with pytest.raises(PageCrash, match="signal 9"):
        rasterizer.render(laughs, [], 0, 36, 25)
    assert rasterizer.render(good, [], 0, 36, 25).words
    assert rasterizer.child_pid != child


def test_a_hang_ends_at_its_deadline_and_leaves_no_process(tmp_path: Path) -> None:
    laughs = write(tmp_path / "l.pdf", billion_laughs(30))
    good = str(text_pdf(tmp_path / "g.pdf", 1))
    with IsolatedRasterizer("pymupdf", 1.5, 1024) as rasterizer:
        rasterizer.probe(good, [])
        child = rasterizer.child_pid
        started = time.monotonic()
        with pytest.raises(PageTimeout):
            rasterizer.render(laughs, [], 0, 36, 25)
        assert time.monotonic() - started < 10
        assert child is not None
        assert not psutil.pid_exists(child)
        assert rasterizer.render(good, [], 0, 36, 25).words


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys, os, signal; from pipelines.raster.isolate import IsolatedRasterizer\n"
        "r = IsolatedRasterizer('pypdfium2', 5, 512); r.probe(sys.argv[1], []); print(r.child_pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    good = str(text_pdf(tmp_path / "g.pdf", 1))
    found = subprocess.run([sys.executable, "-c", script, good], stdout=subprocess.PIPE, check=False, timeout=60)
    child = int(found.stdout)
    until = time.monotonic() + 10
    while psutil.pid_exists(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(child)


@pytest.mark.parametrize("said", [b"[1, 2]", b'"pages"', b"{", b"\xff\x00"])
def test_a_child_that_answers_nonsense_is_ended_and_costs_one_call(tmp_path: Path, said: bytes) -> None:
    """Native code that a document has taken over may say anything."""

    class Saying:
        def send_bytes(self, _: bytes) -> None: ...
        def close(self) -> None: ...
        def poll(self, _: float) -> bool:
            return True

        def recv_bytes(self) -> bytes:
            return said

    path = write(tmp_path / "a.pdf", pdf_bytes(["hello"]))
    with IsolatedRasterizer("pypdfium2", 8, 1024) as made:
        made.probe(path, [], 8)
        before = made.child_pid
        made._connection = Saying()  # type: ignore[assignment]
        with pytest.raises(PageCrash):
            made.probe(path, [], 8)
        assert made.child_pid is None
        assert made.probe(path, [], 8).page_count == 1
        assert made.child_pid != before


def test_encryption(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    document = pymupdf.open("pdf", pdf_bytes(["secret words"]))
    locked = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="open", owner_pw="own")
    owner = document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_128, user_pw="", owner_pw="own")
    path = write(tmp_path / "locked.pdf", locked)
    with pytest.raises(Encrypted):
        rasterizer.probe(path, ["wrong"])
    assert rasterizer.probe(path, ["wrong", "open"]).page_count == 1
    assert [word.text for word in rasterizer.render(path, ["wrong", "open"], 0, 36, 25).words] == ["secret", "words"]
    assert rasterizer.probe(write(tmp_path / "owner.pdf", owner), []).page_count == 1


def test_content_decides_not_the_name(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    with pytest.raises(HtmlPage):
        rasterizer.probe(write(tmp_path / "a.pdf", b"\n<html><body>not found"), [])
    with pytest.raises(UnsupportedFormat):
        rasterizer.probe(write(tmp_path / "b.pdf", b"\x1f\x8b\x08" + b"x" * 100), [])
    with pytest.raises(DamagedDocument):
        rasterizer.probe(write(tmp_path / "c.pdf", b"%PDF-1.7\n" + b"x" * 100), [])
    sink = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(sink, "PNG")
    assert rasterizer.probe(write(tmp_path / "d.pdf", sink.getvalue()), []).format == "png"


def test_images(tmp_path: Path) -> None:
    frames = [Image.new("L", (100, 50 + 10 * n), 255 - 60 * n) for n in range(3)]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:], dpi=(100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (80, 40), "blue").save(tmp_path / "b.jpg", exif=exif)
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "c.webp", lossless=True)
    with IsolatedRasterizer("pymupdf", 20, 1024) as rasterizer:
        assert rasterizer.probe(str(tmp_path / "a.tiff"), []).page_count == 3
        assert rasterizer.render(str(tmp_path / "a.tiff"), [], 2, 144, 25).pixels.shape == (70, 100, 3)
        assert rasterizer.render(str(tmp_path / "b.jpg"), [], 0, 144, 25).pixels.shape == (80, 40, 3)
        assert rasterizer.render(str(tmp_path / "c.webp"), [], 0, 144, 25).pixels.min() > 250  # transparent is paper


def test_a_stereo_photograph_is_one_page_and_a_broken_image_is_said_to_be_one(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 30), "red")
    picture.save(tmp_path / "a.mpo", save_all=True, append_images=[picture.rotate(5)])
    broken = write(tmp_path / "b.png", b"\x89PNG\r\n\x1a\n" + bytes(60))
    with IsolatedRasterizer("pymupdf", 20, 1024) as rasterizer:
        found = rasterizer.probe(str(tmp_path / "a.mpo"), [])
        assert (found.format, found.page_count) == ("jpeg", 1)
        with pytest.raises(DamagedDocument, match=r"cannot identify image file|broken PNG"):
            rasterizer.probe(broken, [])


def test_damage_is_flagged(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    whole = pdf_bytes([f"page {n}" for n in range(4)])
    for name, data in {"cut": whole[: len(whole) * 9 // 10], "no-eof": whole.replace(b"startxref", b"startxxxx")}.items():
        path = write(tmp_path / f"{name}.pdf", data)
        try:
            assert "repaired" in rasterizer.probe(path, []).flags
        except DamagedDocument:
            continue
        assert "repaired" in rasterizer.render(path, [], 0, 36, 25).flags


def test_annotations_are_drawn(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    document = pymupdf.open("pdf", pdf_bytes([""]))
    annotation = document[0].add_rect_annot(pymupdf.Rect(50, 50, 150, 150))
    annotation.set_colors(stroke=(1, 0, 0), fill=(1, 0, 0))
    annotation.update()
    page = rasterizer.render(write(tmp_path / "n.pdf", document.tobytes()), [], 0, 72, 25)
    assert tuple(page.pixels[100, 100]) == (255, 0, 0)


def test_a_huge_page_is_downscaled_and_says_so(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    huge = pdf_bytes(["wide"]).replace(b"[0 0 300 200]", b"[0 0 9000 9000]")
    page = rasterizer.render(write(tmp_path / "h.pdf", huge), [], 0, 144, 4)
    assert page.pixels.shape[0] * page.pixels.shape[1] <= 4.1e6
    assert "downscaled" in page.flags


def test_form_fields_are_drawn_and_read(rasterizer: IsolatedRasterizer, tmp_path: Path) -> None:
    page = rasterizer.render(write(tmp_path / "f.pdf", kinds()["form-fields"][0]), [], 0, 72, 25)
    assert page.pixels.min() < 128


def test_a_span_costs_at_most_three_deadlines(tmp_path: Path) -> None:
    config = load(settings=["raster.deadline_s=1.5"])
    path = tmp_path / "l.pdf"
    path.write_bytes(billion_laughs(30, pages=8))
    stage = Rasterize(config.raster)
    (work,) = begin([Span("d" * 64, 1, tuple(range(8)), "uri", 8, "pdf")])
    stage.rasterize(work, path, DocumentBudget(tmp_path / "budget", 100))
    stage.close()
    assert [page.error.code for page in work.pages if page.error] == ["PAGE_TIMEOUT"] * 3 + ["BUDGET_EXCEEDED"] * 5
    assert all(page.timing for page in work.pages)
    assert DocumentBudget(tmp_path / "budget", 100).spent() >= 4.5


@pytest.mark.parametrize("engine", ENGINES)
def test_every_hostile_kind_ends_by_name(tmp_path: Path, engine: str) -> None:
    """A page or a named error, and a child that goes on; which states are right is tested through Ray."""
    good = str(text_pdf(tmp_path / "g.pdf", 1))
    with IsolatedRasterizer(engine, 4, 512) as rasterizer:
        for name, (data, _) in kinds().items():
            path, found = write(tmp_path / "h", data), ""
            try:
                for index in range(min(3, rasterizer.probe(path, []).page_count)):
                    rasterizer.render(path, [], index, 72, 4)
            except PagemillError as error:
                found = error.code
            assert found != "INTERNAL", name
            assert rasterizer.render(good, [], 0, 36, 25).words, name


@pytest.mark.parametrize("engine", ENGINES)
def test_a_count_that_lies_costs_no_million_pages(tmp_path: Path, engine: str) -> None:
    with IsolatedRasterizer(engine, 20, 1024) as rasterizer:
        probe = rasterizer.probe(write(tmp_path / "l.pdf", kinds()["count-absurd"][0]), [])
        assert (probe.page_count, probe.flags) == (6, ("repaired",))
        many = rasterizer.probe(str(text_pdf(tmp_path / "m.pdf", 1200)), [])
        assert (many.page_count, many.flags) == (1200, ())


def test_blank_is_paper_with_dust() -> None:
    dice = np.random.default_rng(1)
    paper = np.clip(dice.normal(235, 4, (800, 600, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    dusty = paper.copy()
    dusty[100, 100] = dusty[500, 300] = 0
    printed = paper.copy()
    printed[100:112, 100:160] = 20
    assert is_blank(paper)
    assert is_blank(dusty)
    assert not is_blank(printed)


def test_a_document_budget_is_shared_by_processes_and_survives_them(tmp_path: Path) -> None:
    path = tmp_path / "d.budget"
    for _ in range(3):
        DocumentBudget(path, 10).charge(3.25)
    assert DocumentBudget(path, 10).spent() == pytest.approx(9.75)
    assert not DocumentBudget(path, 10).exhausted()
    DocumentBudget(path, 10).charge(1)
    assert DocumentBudget(path, 10).exhausted()
