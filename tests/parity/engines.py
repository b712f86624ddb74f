"""A layout model and a reader that say of a generated page what its case has; loaded by name in a run."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.config import Config
from pipelines.layout.postprocess import PostOptions, postprocess
from pipelines.recognize.base import Answer, Crop
from pipelines.schema import RasterPage, Region
from tests.parity import cases

SEED = 100


def case_of(page: RasterPage) -> dict:  # type: ignore[type-arg]
    """The case that a page was drawn from, by its size and seed: the tests give each page of a run another width."""
    width = page.pixels.shape[1]
    return next(case for case in chosen() if case["wh"][0] == width)


def chosen() -> list[dict]:  # type: ignore[type-arg]
    """Cases with something to read, one for each width."""
    found: dict[int, dict] = {}  # type: ignore[type-arg]
    for seed in range(SEED, SEED + 60):
        for case in cases.document(seed)["pages"]:
            plain = not any(case[key] for key in ("by_class", "threshold", "mode", "modes", "unclip", "unclips"))
            if case["layout"] and len(case["rows"]) >= 5 and plain:
                found.setdefault(case["wh"][0], case)
    return list(found.values())


class Layout:
    name, weights, batch_pages = "cases", "", 2

    def __init__(self, config: Config) -> None:
        self._options = PostOptions.of(config.paddleocr_vl)

    def detect(self, pages: Sequence[RasterPage]) -> list[list[Region]]:
        return [postprocess(case_of(page)["rows"], page.pixels.shape[1], page.pixels.shape[0], self._options) for page in pages]


class Reader:
    """Answers each prompt from one list, in any order of asking: the same question gets the same answer."""

    name = "cases"

    def __init__(self, config: Config) -> None:
        del config

    async def answer(self, crop: Crop) -> Answer:
        return Answer(answer_to(crop))

    def close(self) -> None:
        pass


def answer_to(crop: Crop) -> str:
    known = cases.document(SEED)["pages"][0]["answers"][crop.prompt]
    return str(known[sum(crop.regions) % len(known)])
