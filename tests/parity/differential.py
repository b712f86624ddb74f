"""`make parity`: freshly generated pages through the official code and through ours, every output compared.

Runs in `.venv-paddle`, where both sides have one OpenCV (4.10 and 5.0 fill slanted outlines differently), and starts the official
code in a process of its own (its Python as the first argument). Prints how many pages agree, ends with 1 when one does not. The
seed is printed, and can be given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jobs.parity import Held, hold
from pipelines.assemble.official.document import one_page, one_result, restructured
from pipelines.assemble.official.markdown import page_markdown
from pipelines.assemble.official.page import OfficialPage, official_page, pruned_result
from pipelines.config import PaddleOcrVlConfig, load
from pipelines.layout.labels import own_label
from pipelines.layout.postprocess import PostOptions, postprocess
from pipelines.recognize.crops import picture, sampling
from pipelines.recognize.plan import PROMPTS, Ask, make_plan
from pipelines.schema import Box, Region
from tests.parity import cases, drawing

Json = dict[str, Any]
_NO_PLACE = ("input_path", "page_index", "page_count")


def options_of(case: Json, base: PaddleOcrVlConfig) -> PaddleOcrVlConfig:
    given = dict(case["opts"])
    if case["by_class"]:
        given["layout_threshold"] = {int(k): v for k, v in case["by_class"].items()}
    elif case["threshold"]:
        given["layout_threshold"] = case["threshold"]
    given["layout_merge_bboxes_mode"] = {int(k): v for k, v in case["modes"].items()} or case["mode"]
    ratios = {int(k): tuple(v) for k, v in case["unclips"].items()}
    given["layout_unclip_ratio"] = ratios or (tuple(case["unclip"]) if case["unclip"] else None)
    made = base.model_validate(base.model_dump() | given)
    return made if case["layout"] else made.whole_page()


def regions_of(case: Json, options: PaddleOcrVlConfig) -> list[Region]:
    width, height = case["wh"]
    if not case["layout"]:
        return [Region(own_label(options.prompt_label), Box(0, 0, width, height), 1.0, options.prompt_label)]
    masks = None
    if case["masks"] is not None:
        masks = list(drawing.masks(case["masks"], [row[2:6] for row in case["rows"]], width, height))
    return postprocess(case["rows"], width, height, PostOptions.of(options), masks)


def read(case: Json, calls: list[list[Any]], options: PaddleOcrVlConfig) -> tuple[OfficialPage, list[list[Any]]]:
    """Our page, and what we asked, in the order in which the official code asks (grouped by pixel budget)."""
    width, height = case["wh"]
    regions = regions_of(case, options)
    pixels = drawing.page(case["seed"], width, height)
    asks = make_plan(regions, width, height, options).asks
    budgets = list(dict.fromkeys((ask.min_pixels, ask.max_pixels) for ask in asks))
    ordered = sorted(asks, key=lambda ask: budgets.index((ask.min_pixels, ask.max_pixels)))
    asked = [_asked(ask, np.ascontiguousarray(picture(pixels, ask, regions, options)), options) for ask in ordered]
    answers = {ask.regions[0]: call[-1] for ask, call in zip(ordered, calls, strict=False)}
    return official_page(regions, answers, width, height, options, case["layout"]), asked


def _asked(ask: Ask, pixels: Any, options: PaddleOcrVlConfig) -> list[Any]:
    how = sampling(ask.task, options)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    given = [how.temperature, how.top_p, how.repetition_penalty, how.max_tokens]
    budget = [ask.min_pixels, ask.max_pixels, given, how.skip_special_tokens]
    return [PROMPTS[ask.task], list(pixels.shape[:2]), digest, float(pixels.mean()), *budget]


def told(page: OfficialPage, options: PaddleOcrVlConfig, pruned: Json | None = None) -> Json:
    whole = pruned if pruned is not None else pruned_result(page, options)
    return {
        "json": json.loads(json.dumps({key: value for key, value in whole.items() if key not in _NO_PLACE})),
        "md": page_markdown(page, options, pretty=True, numbers=False),
        "md_plain": page_markdown(page, options, pretty=False, numbers=False),
        "md_num": page_markdown(page, options, pretty=True, numbers=True),
        "imgs": sorted(page.figures),
    }


def official(found: Json) -> Json:
    """An official result without what names a file."""
    whole = {key: value for key, value in found["json"].items() if key not in _NO_PLACE}
    detected = whole.get("layout_det_res")
    if isinstance(detected, dict):
        whole["layout_det_res"] = {"boxes": detected["boxes"]}
    elif isinstance(detected, list):
        whole["layout_det_res"] = [{"boxes": each["boxes"]} for each in detected]
    return {**{key: found[key] for key in ("md", "md_plain", "md_num", "imgs")}, "json": whole}


def differences(name: str, wanted: Any, got: Any) -> list[str]:
    """Paths at which two results differ, the deepest common one each."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        keys = list(dict.fromkeys([*wanted, *got]))
        return [text for key in keys for text in differences(f"{name}.{key}", wanted.get(key), got.get(key))]
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        return [text for i, pair in enumerate(zip(wanted, got, strict=True)) for text in differences(f"{name}[{i}]", *pair)]
    return [] if wanted == got else [f"{name}: official {wanted!r:.300}\n      ours {got!r:.300}"]


class Tally:
    def __init__(self) -> None:
        self.pages = self.agreeing = self.crops = self.documents = self.joined = 0
        self.raised: Counter[str] = Counter()
        self.texts: list[str] = []

    def fell(self, words: str) -> None:
        self.raised[words] += 1

    def page(self, name: str, found: list[str]) -> None:
        self.pages += 1
        self.agreeing += not found
        self.texts += [f"{name}: {text}" for text in found]


def compare(seed: int, given: Json, result: Json, base: PaddleOcrVlConfig, tally: Tally) -> None:
    pages: list[OfficialPage] = []
    whole = True
    for number, (case, found) in enumerate(zip(given["pages"], result["pages"], strict=True)):
        options = options_of(case, base)
        if "raised" in found:  # ours must give a page all the same
            page, _ = read(case, [], options)
            told(page, options)
            tally.fell(found["raised"])
            whole = False
            continue
        page, asked = read(case, found["calls"], options)
        pages.append(page)
        got = told(page, options) | {"calls": asked}
        wanted = official(found) | {"calls": [list(call[:-1]) for call in found["calls"]]}
        tally.crops += len(asked)
        tally.page(f"document {seed} page {number}", differences("", wanted, got))
    if not whole:
        return
    options = options_of(given["pages"][0], base).model_copy(update=given["restructure"])
    again = restructured(pages, options)
    for kind, ours in (
        ("restructured", lambda: [told(page, options) for page in again]),
        ("one", lambda: [told(one_page(again, options), options, one_result(again, options))]),
    ):
        if isinstance(result[kind], dict):
            ours()
            tally.fell(result[kind]["raised"])
            continue
        tally.documents += 1
        found = differences(kind, [official(each) for each in result[kind]], ours())
        tally.joined += not found
        tally.texts += [f"document {seed}: {text}" for text in found]


def vectors(python: Path, seed: int, count: int) -> list[Held]:
    """Hostile inputs of each kind of vector, through the official functions and through ours."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("fresh_vectors.py")
        subprocess.run([str(python), "-W", "ignore", str(script), folder, str(seed), str(count)], check=True)
        return [hold(file) for file in sorted(Path(folder).glob("*.jsonl"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path, help="of the environment with paddlex")
    parser.add_argument("--pages", type=int, default=600, help="at least so many")
    parser.add_argument("--vectors", type=int, default=500, help="further inputs for each official function by itself")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    base = load(settings=["paddleocr_vl.strict_parity=true"]).paddleocr_vl
    print(f"seed {given.seed}", flush=True)
    tally = Tally()
    oracle = [str(given.python), str(Path(__file__).with_name("oracle.py"))]
    with subprocess.Popen(oracle, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seed = given.seed
        while tally.pages < given.pages:
            case = cases.document(seed)
            process.stdin.write(json.dumps(case) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                print("the official code ended; its words are above", file=sys.stderr)
                return 2
            compare(seed, case, json.loads(line), base, tally)
            seed += 1
        process.stdin.close()
    for text in tally.texts[:20]:
        print(text)
    print(f"pages {tally.agreeing}/{tally.pages} agree, {tally.crops} crops; whole documents {tally.joined}/{tally.documents}")
    print(f"{tally.raised.total()} more made the official code raise, and gave a result here")
    for words, times in tally.raised.most_common(12):
        print(f"  {times} x {words}")
    held = vectors(given.python, given.seed, given.vectors)
    for kind in held:
        raised = f"; {kind.declared} more made the official code raise" if kind.declared else ""
        print(f"{kind.name} {kind.matched}/{kind.total - kind.declared} agree{raised}")
        print(*(kind.differing or [])[:3], sep="\n", end="\n" if kind.differing else "")
    return int(bool(tally.texts) or any(kind.differing for kind in held))


if __name__ == "__main__":
    sys.exit(main())
