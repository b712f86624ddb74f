"""`text_layer: verify`: what was read from pixels, held against a trusted layer, block by block."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.recognize.embedded import _disagreement
from pipelines.schema import Block, Box, RasterPage, Word


def page(*lines: str) -> RasterPage:
    words = tuple(
        Word(text, Box(10 + 40 * i, 20 * row, 45 + 40 * i, 20 * row + 12), row, 12)
        for row, line in enumerate(lines)
        for i, text in enumerate(line.split())
    )
    return RasterPage(np.full((400, 600, 3), 255, np.uint8), 144, 300, 200, words)


def block(content: str, row: int) -> Block:
    return Block("text", Box(0, 40 * row, 600, 40 * row + 30), content, "pixels", "ocr", "w")


def test_each_block_gets_its_own_agreement() -> None:
    layer = page("Seven members of the committee were present", "The bell shall be recast before harvest", "short")
    blocks = [
        block("Seven members of the committee were present", 0),
        block("quite another sentence stands here, it seems", 1),
        block("x", 2),
        block("nothing of the layer lies here", 6),
    ]
    assert _disagreement(blocks, layer) == ["text_layer_disagrees"]
    assert blocks[0].agreement == 1.0
    assert blocks[1].agreement == pytest.approx(0.4, abs=0.15)
    assert blocks[2].agreement == 0.0  # too short to flag the page
    assert blocks[3].agreement is None
    assert _disagreement(blocks[:1] + blocks[2:], layer) == []
