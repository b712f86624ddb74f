"""`pagemill export`: results in another program's form."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Annotated, Literal

import typer
import yaml

from jobs.common import Conf, Manifest, OutputArgument, Settings, Unpublished, guarded, say_held_back
from pipelines.config import PaddleOcrVlConfig, load
from pipelines.export.documents import Exported
from pipelines.store.one_document import options_of
from pipelines.store.reading import Output


def export(
    output: OutputArgument,
    target: Annotated[str, typer.Argument(help="folder or URI that the files go to")],
    form: Annotated[Literal["paddleocr"], typer.Option("--as", help="paddleocr: the official PaddleOCR-VL files")] = "paddleocr",
    document: Annotated[list[str] | None, typer.Option(help="id or name; more than once; default: all")] = None,
    unpublished: Unpublished = False,
    overlay: Annotated[bool, typer.Option(help="pictures of the pages with their boxes; needs the source")] = False,
    manifest: Manifest = None,
    restructure: Annotated[bool, typer.Option(help="merge tables and level titles over a document's pages")] = False,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Results as the official PaddleOCR-VL pipeline saves them: *_res.json, .md, imgs/, and the HTTP API's answer."""
    from pipelines.export.documents import documents
    from pipelines.export.paddleocr import PaddleOcrExport
    from pipelines.observe.pages import PageDrawer
    from pipelines.output import open_target
    from pipelines.source.discovery import openers
    from pipelines.store.publishing import held_back

    config = load(conf or [], settings or [])
    found_openers = openers(manifest, config)
    drawing = PageDrawer(config, tuple(found_openers.values())) if overlay else nullcontext()
    numbers = {uri: number for number, uri in enumerate(found_openers, 1)}
    with Output(output, config.store.storage_options, published=not unpublished) as opened, drawing as drawer:
        target_store = open_target(target, config.store)
        writer = PaddleOcrExport(opened.store, target_store, config.paddleocr_vl, restructure, drawer, numbers)
        for found in documents(opened, document or []):
            writer.document(found, _options_of(opened, found, conf, settings))
        held = held_back(opened.con, document or [])
    counts = writer.counts
    print(f"{counts.documents} documents, {counts.pages} pages as {form} in {target}")
    say_held_back(held)
    for what, names in (("not read, left out", counts.failed), ("without overlay", counts.not_drawn)):
        if names:
            print(f"{len(names)} pages {what}:", *names[:10], *(["..."] if len(names) > 10 else []), sep="\n  ", file=sys.stderr)


def _options_of(opened: Output, found: Exported, conf: Conf, settings: Settings) -> PaddleOcrVlConfig:
    """Of the run that read a document, as its folder has them; the document's own and `--set` over them."""
    origin = f"runs/{found.pages[0]['run_id']}/config.yaml"
    try:
        told = yaml.safe_load(opened.store.get(origin)) or {}
    except FileNotFoundError:
        told = {}
    own = json.loads(options_of(opened.con, found.doc_id) or "{}")
    layers = [(origin, told.get("paddleocr_vl", {})), (f"options of {found.uri}", own)]
    return load(conf or [], settings or [], [(name, {"paddleocr_vl": layer}) for name, layer in layers]).paddleocr_vl


if __name__ == "__main__":
    guarded(export)
