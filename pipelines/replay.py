"""One page out of a capsule, read alone in this process: the stages of a run, without Ray, without an archive.

Invariant: nothing outside a temporary folder is written, nothing is fetched; what ends this process is the page's doing (the
caller runs it in a child: `jobs/replay.py`). Native code that draws the page runs in a child of its own, as in every run.
"""

from __future__ import annotations

import difflib
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.fingerprint import fingerprint
from pipelines.observe.capsule import Capsule
from pipelines.recognize.engines import identify
from pipelines.schema import PageState, PageWork, Span
from pipelines.stages import Chain, Site, begin, stage_names


def replay(capsule: Capsule, config: Config, password: str | None = None) -> tuple[PageWork, dict[str, float]]:
    """The page as it is read now, and seconds by stage.

    Args:
        password: of the document, tried before those of the configuration.

    Raises:
        ConfigError: the capsule has neither document nor picture, or the engine is not here.
    """
    data = capsule.document if capsule.document is not None else capsule.page
    if data is None:
        raise ConfigError("the capsule has neither the document nor a picture of the page")
    row = capsule.row
    number = int(row["page_index"]) if capsule.document is not None else 0
    with tempfile.TemporaryDirectory(prefix="pagemill-replay-") as folder:
        document = Path(folder) / "document"
        document.write_bytes(data)
        alone = {"cache_dir": f"{folder}/cache", "span_pages": 1}
        config = config.model_copy(update={"source": config.source.model_copy(update=alone)})
        secrets = ((None, password),)
        site = Site(config, f"{folder}/output", "replay", fingerprint(config, {}), identify(config), secrets=secrets)
        span = Span(hashlib.sha256(data).hexdigest(), 1, (number,), str(document), number + 1, "", secret=1)
        chain = Chain([name for name in stage_names(config) if name != "write"], site)
        seconds: dict[str, float] = {}
        try:
            ((page,),) = [work.pages for work in chain.through(begin([span]), seconds)]
        finally:
            chain.close()
    return page, seconds


def told(capsule: Capsule, config: Config, password: str | None = None) -> Iterator[str]:
    """The capsule, and what becomes of it, line by line; the last one begins with `state`.

    Args:
        password: as of `replay`.

    Raises:
        ConfigError
    """
    row, error = capsule.row, capsule.about.get("error")
    name, document = capsule.about.get("uri"), str(row["doc_id"])[:12]
    yield f"page     {int(row['page_index']) + 1} of {name} ({document}), run {row.get('run_id')}"
    yield f"stored   {row['state']}" + (f": {error['code']} in {error['stage']}: {error['message']}" if error else "")
    if error and error.get("trace"):
        yield error["trace"].rstrip()
    for note in capsule.about.get("notes", []):
        yield f"note     {note}"
    if capsule.document is None:
        yield "note     read from the page's picture: without a text layer"
    yield f"engines  raster {config.raster.engine}, layout {config.layout.engine}, reader {config.recognize.engine}"
    started = time.perf_counter()
    page, seconds = replay(capsule, config, password)
    spent = ", ".join(f"{stage} {amount:.2f}" for stage, amount in seconds.items())
    yield f"seconds  {spent}; {time.perf_counter() - started:.1f} in all"
    yield from _outcome(page, row)


def _outcome(page: PageWork, row: dict[str, object]) -> Iterator[str]:
    if page.flags:
        yield f"flags    {', '.join(page.flags)}"
    codes = sorted(block.error_code for block in page.blocks if block.error_code)
    yield f"blocks   {len(page.blocks)}" + (f", with errors: {', '.join(codes)}" if codes else "")
    before = str(row.get("markdown") or "")
    if page.markdown or before:
        ratio = difflib.SequenceMatcher(None, before.split(), page.markdown.split(), autojunk=False).ratio()
        yield "text     " + ("the same as stored" if page.markdown == before else f"{100 * ratio:.1f} % of the stored words")
    if page.error is not None:
        if page.error.trace:
            yield page.error.trace.rstrip()
        yield f"state    {PageState.FAILED}: {page.error.code} in {page.error.stage}: {page.error.message}"
    else:
        yield f"state    {page.state}"
