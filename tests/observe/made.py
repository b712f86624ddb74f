"""Reports made from plain values: pages whose every field the test chose."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.errors import ExitCode
from pipelines.observe.html import render
from pipelines.observe.pages import ShownPage, picture_of
from pipelines.observe.report import report_dict
from pipelines.observe.sample import Pick
from pipelines.observe.summary import Failure, Summary
from pipelines.schema import BLOCK, PAGES, Block, Box, PageWork
from pipelines.store.parts import page_row

WIDTH, HEIGHT = 600, 800


def block(label: str, content: str, y: float = 40, **more: Any) -> Block:
    defaults: dict[str, Any] = {"source": "text_layer", "engine": "text layer", "weights": ""}
    return Block(label, Box(60, y, 540, y + 60), content, **(defaults | more))


def shown_page(doc: int, page: int, blocks: list[Block], *, state: str = "ok", reason: str = "random", **more: Any) -> ShownPage:
    work = PageWork(
        f"{doc:064x}", page, blocks=blocks, width_px=WIDTH, height_px=HEIGHT, width_pt=300.0, height_pt=400.0, dpi=144.0
    )
    work.markdown = "\n\n".join(block.content for block in blocks)
    row = page_row(work) | {"revision": 1, "state": state} | {k: v for k, v in more.items() if k in PAGES.names}
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for made in blocks:
        x0, y0, x1, y1 = (int(side) for side in made.box_px)
        pixels[y0 + 4 : y1 - 4 : 8, x0 + 4 : x1 - 4] = 30
    uri = more.get("uri", f"/in/document-{doc}.pdf")
    return ShownPage(Pick(0.0, f"{doc:064x}", page, uri, "part", "attempt", state, reason), row, picture_of(pixels))


def summary_of(pages: list[ShownPage], failures: list[Failure] | None = None) -> Summary:
    summary = Summary(
        "20261124T000000Z-abcdef", "/in", "/out", "f" * 16, {"recognize": "embedded"}, started=1.8e9, ended=1.8e9 + 20
    )
    summary.status, summary.pending, summary.workers, summary.planned_pages = "finished", 0, 2, len(pages)
    for page in pages:
        summary.pages[page.pick.state] += 1
    summary.documents["ok"] = 1
    summary.timeline = [(4.0, 1), (12.0, len(pages))]
    summary.stage_seconds.update({"rasterize": 3, "recognize": 20})
    for failure in failures or []:
        summary.failed(failure)
    return summary


def report(pages: list[ShownPage], failures: list[Failure] | None = None, config_yaml: str = "") -> str:
    summary = summary_of(pages, failures)
    return render(report_dict(summary, ExitCode.OK, pages), pages, config_yaml)


assert {field.name for field in BLOCK} >= {"confidence", "agreement", "raw"}
