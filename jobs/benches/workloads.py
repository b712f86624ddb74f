"""What the engine benches read: pages as lists of crops, each with its size and the number of tokens it shall answer.

Invariant: a workload is a function of its arguments; what an engine may sort by (`expected`) is never the true length,
but in `known`, whose lengths are a function of area: that flatters it, and the bench says so.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.recognize.pack import target_size
from pipelines.schema import Pixels

TOKENS_PER_PIXEL = 1 / 1450  # of dense text at 144 dpi
LONGEST = 4096
BUDGET = (112_896, 1_003_520)  # pixels a crop: the official pipeline's
PATCH = 14  # pixels a side: the model's


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches that a crop of so many pixels becomes."""
    scaled = target_size(height, width, *BUDGET)
    return scaled[0] // PATCH, scaled[1] // PATCH


@dataclass(slots=True, frozen=True)
class Job:
    """One crop to read."""

    page: int
    width: int  # pixels
    height: int
    tokens: int  # that its answer shall have
    expected: int  # what a scheduler may know: from the area alone


def known(pages: int, seed: int = 0) -> list[list[Job]]:
    """A4 at 144 dpi, 13.7 crops and 1,370 output tokens a page: the workload of earlier measurements, unchanged."""
    r = random.Random(seed)
    made: list[list[Job]] = []
    for page in range(pages):
        sizes: list[tuple[int, int, int]] = []
        for _ in range(r.randint(8, 14)):
            width, height = r.choice([480, 980, 980]), r.choice([60, 120, 180, 260, 340])
            sizes.append((width + r.randrange(-40, 40), height, max(8, int(width * height * TOKENS_PER_PIXEL))))
        sizes += [(r.randrange(200, 700), r.randrange(24, 40), r.randint(6, 16)) for _ in range(r.randint(1, 4))]
        if r.random() < 0.4:
            sizes.append((980, r.randrange(250, 600), r.randint(200, 700)))
        made.append([Job(page, w, h, n, n) for w, h, n in sizes])
    return made


def archive(boxes: Path, pages: int, seed: int = 0) -> list[list[Job]]:
    """Like real archives: boxes of real pages (`boxes_of`), pages drawn at 0.7 to 1.3 of their resolution, each side of a box
    scaled by up to 35 %, answers lognormal around what the area makes one expect (sigma 0.6), one in a hundred running to the
    limit."""
    r = random.Random(seed)
    real: list[list[tuple[int, int]]] = json.loads(boxes.read_text("utf-8"))
    made: list[list[Job]] = []
    for page in range(pages):
        jobs = []
        dpi = r.uniform(0.7, 1.3)
        for width, height in r.choice(real):
            w, h = (max(8, round(side * dpi * r.uniform(0.65, 1.35))) for side in (width, height))
            expected = max(4, round(w * h * TOKENS_PER_PIXEL))
            tokens = LONGEST if r.random() < 0.01 else min(LONGEST, max(2, round(expected * math.exp(r.gauss(0, 0.6)))))
            jobs.append(Job(page, w, h, tokens, expected))
        made.append(jobs)
    return made


def boxes_of(documents: Iterable[Path], dpi: float = 144, most_pages: int = 12) -> list[list[tuple[int, int]]]:
    """(width, height) in pixels of the text layer's blocks of each page that has 8 to 40 of them."""
    import pymupdf

    found: list[list[tuple[int, int]]] = []
    for path in documents:
        with pymupdf.open(path) as document:
            for number in range(min(len(document), most_pages)):
                blocks = document[number].get_text("blocks")
                sides = [(round((b[2] - b[0]) * dpi / 72), round((b[3] - b[1]) * dpi / 72)) for b in blocks]
                sides = [(w, h) for w, h in sides if w >= 6 and h >= 6 and max(w, h) <= 190 * max(28, min(w, h))]
                if 8 <= len(sides) <= 40:
                    found.append(sides)
    return found


def write_boxes(documents: Path, file: Path) -> None:
    """`python -m jobs.benches.workloads DOCUMENTS FILE`: the blocks of a folder's PDFs, for `--boxes FILE`."""
    found: list[list[tuple[int, int]]] = []
    for path in sorted(documents.rglob("*.pdf")):
        try:
            found += boxes_of([path])
        except Exception as error:  # a damaged or encrypted one: the others have boxes enough
            print(f"left out: {path}: {error}")
    file.write_text(json.dumps(found), "utf-8")
    print(f"{file}: {len(found)} pages, {sum(map(len, found)) / max(1, len(found)):.1f} blocks each")


def picture(job: Job, seed: int) -> Pixels:
    """Black specks on white, as many as text would make."""
    generator = np.random.default_rng(seed)
    made = np.full((job.height, job.width, 3), 255, np.uint8)
    specks = job.height * job.width // 12
    made[generator.integers(0, job.height, specks), generator.integers(0, job.width, specks)] = 0
    return made


if __name__ == "__main__":
    write_boxes(*map(Path, sys.argv[1:3]))
