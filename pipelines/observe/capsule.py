"""Capsules: one page with all that it takes to read it again, in one file, on any machine.

A capsule is a zip file with `capsule.json` (what was stored of the page, the question that each block was, options, versions,
error and traceback), `document` (the bytes), `page.png` (as it was drawn) and `crop.png` (a block that was asked for).

Invariant: no pickle, no name of a member becomes a path, sizes are bounded before anything is read; no secret is in it (passwords
neither: an encrypted document stays encrypted). What it says of configuration are options that change results, never code,
a server, a model's place or further arguments of an engine: whoever opens the capsule of a stranger brings those.
"""

from __future__ import annotations

import io
import json
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import FINGERPRINTED, Config, PaddleOcrVlConfig
from pipelines.errors import ConfigError, PagemillError
from pipelines.observe.pages import PageDrawer, read_row
from pipelines.observe.recall import asked, opened_by, with_own_options
from pipelines.observe.sample import Pick
from pipelines.options import with_options
from pipelines.recognize.crops import plan_crops
from pipelines.schema import Box, Pixels, RasterPage, Region
from pipelines.secrets import public
from pipelines.source.cache import DocumentCache
from pipelines.source.manifest import Secret, opening
from pipelines.store.reading import Output

FORMAT = "1.0"
_MOST = {"capsule.json": 256 << 20, "document": 4 << 30, "page.png": 1 << 30, "crop.png": 256 << 20}  # bytes of each member
_NEVER = frozenset({"vllm.engine_args"})  # could name code
_ERROR = ("code", "stage", "message", "trace")
_LIBRARIES = ("pagemill", "ray", "pymupdf", "pypdfium2", "pillow", "numpy", "onnxruntime", "rapidocr", "rapid-layout",
              "rapid-table", "faster-paddle", "vllm", "torch", "transformers", "paddlepaddle", "paddlex")  # fmt: skip


@dataclass(slots=True)
class Capsule:
    """
    Args:
        about: what capsule.json holds. document: None where it was left out or is gone. page, crop: PNG.
    """

    about: dict[str, Any]
    document: bytes | None = None
    page: bytes | None = None
    crop: bytes | None = None

    @property
    def row(self) -> dict[str, Any]:
        """The page as it was stored: a row of `PAGES`."""
        row: dict[str, Any] = self.about["row"]
        return row

    def settings(self) -> dict[str, dict[str, Any]]:
        """The run's options that change results, by section; see the invariant for what is left out."""
        found: dict[str, dict[str, Any]] = {}
        for section, values in self.about["options"].items():
            fields = getattr(Config.model_fields.get(section), "annotation", None)
            for key, value in values.items():
                info = fields.model_fields.get(key) if fields is not None else None
                code = isinstance(value, str) and ":" in value and key == "engine"
                if info is not None and info.json_schema_extra == FINGERPRINTED and f"{section}.{key}" not in _NEVER and not code:
                    found.setdefault(section, {})[key] = value
        return found

    def brought_engines(self) -> list[str]:
        """Engines of the run that are somebody's own Python: `--set` has to name them."""
        options = self.about["options"]
        named = [f"{room}.engine={options.get(room, {}).get('engine', '')}" for room in ("layout", "recognize")]
        return [name for name in named if ":" in name]

    def write(self, path: Path) -> None:
        told = json.dumps(self.about, ensure_ascii=False, indent=1, default=str).encode("utf-8", "replace")
        members = {"capsule.json": told, "page.png": self.page, "crop.png": self.crop, "document": self.document}
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in members.items():
                if data is not None:
                    file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)


def open_capsule(path: Path) -> Capsule:
    """
    Raises:
        ConfigError: no capsule, a newer one's, or one with members larger than any page's.
    """
    try:
        with zipfile.ZipFile(path) as file:
            held = {name: _member(file, name) for name in _MOST if name in file.namelist()}
        about = json.loads(held["capsule.json"])
        newer = int(str(about["format"]).split(".")[0]) > int(FORMAT.split(".")[0])
        for member in ("row", "options"):
            if not isinstance(about[member], dict):
                raise TypeError(f"{member} is no object")
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"{path} is no capsule: {type(error).__name__}: {error}") from None
    if newer:
        raise ConfigError(f"{path} has format {about['format']}; this pagemill reads {FORMAT}: use a newer one")
    return Capsule(about, held.get("document"), held.get("page.png"), held.get("crop.png"))


def _member(file: zipfile.ZipFile, name: str) -> bytes:
    with file.open(name) as member:
        data = member.read(_MOST[name] + 1)  # the size that the directory claims is not believed
    if len(data) > _MOST[name]:
        raise ValueError(f"{name} has more than {_MOST[name]} bytes")
    return data


def make_capsule(
    output: Output, config: Config, page: str, run: str | None, block: int | None, most_mib: int, manifest: str | None = None
) -> Capsule:
    """
    Args:
        page: DOCUMENT:N, from 1. run: as which run read it; None: what is live. block: index of one, for its picture.
        most_mib: a larger document is left out, and the page's picture stands for it; 0: always.
        manifest: whose rows say what opens the document; that is used, and not in the capsule.

    Raises:
        ConfigError: no such page or block, or several pages.
    """
    picks = asked(output, [page], run)
    if len(picks) != 1:
        raise ConfigError(f"{page}: a capsule holds one page, e.g. --page scan.pdf:3")
    (pick,), secrets = opened_by(manifest, config, [with_own_options(output, picks[0])])
    row = read_row(output.store, pick)
    options = _options(output, str(row["run_id"]), pick.options)
    capsule = Capsule(
        {
            "format": FORMAT, "made_at": datetime.now(UTC).isoformat(timespec="seconds"), "uri": public(pick.uri), "block": block,
            "error": {key: row[f"error_{key}"] for key in _ERROR} if row["error_code"] else None,
            "row": json.loads(json.dumps(row, default=str)), "options": options, "versions": versions(),
            "notes": [], "questions": [],
        }
    )  # fmt: skip
    try:
        config = _as_read(config, options)
    except ConfigError as error:  # of another version, or made up: the page can be had all the same
        capsule.about["notes"].append(f"drawn and asked about with the present options: {error}")
    _bytes(capsule, config, pick, secrets, most_mib)
    _picture(capsule, config, pick, secrets, row)
    if block is not None:
        _block(capsule, row, block)
    return capsule


def versions() -> dict[str, str]:
    """Of this machine, where the capsule is made: not of each worker that read the page."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _options(output: Output, run: str, own: str) -> dict[str, Any]:
    """Of the run that read the page, with the document's own over them."""
    output.check_run(run)
    try:
        told = yaml.safe_load(output.store.get(f"runs/{run}/config.yaml"))
    except FileNotFoundError:
        told = None  # a run that was killed wrote none
    options = {section: values for section, values in (told or {}).items() if isinstance(values, dict)}
    return options | {"paddleocr_vl": options.get("paddleocr_vl", {}) | json.loads(own)} if own else options


def _as_read(config: Config, options: Mapping[str, Any]) -> Config:
    """This configuration with what the page was read with: what was asked, and how a picture was turned, follow from it."""
    known = PaddleOcrVlConfig.model_fields
    read_with = {key: value for key, value in options.get("paddleocr_vl", {}).items() if key in known}
    return with_options(config, json.dumps(read_with))


def _bytes(capsule: Capsule, config: Config, pick: Pick, secrets: Sequence[Secret], most_mib: int) -> None:
    source = config.source
    cache = DocumentCache.of(source)
    link, _ = opening(pick.uri, pick.secret, secrets, ())
    try:
        with cache.use(pick.doc_id, link, source.storage_options) as path:
            size = path.stat().st_size
            if size <= most_mib << 20:
                capsule.document = path.read_bytes()
            else:
                capsule.about["notes"].append(f"the document has {size} bytes and was left out")
    except PagemillError as error:
        capsule.about["notes"].append(f"the document cannot be had: {error}")


def _picture(capsule: Capsule, config: Config, pick: Pick, secrets: Sequence[Secret], row: dict[str, Any]) -> None:
    if row["error_stage"] in ("fetch", "rasterize"):
        capsule.about["notes"].append("no picture: the page could not be drawn when it was read")
        return
    try:
        with PageDrawer(config, secrets) as drawer:
            pixels = drawer.draw(row, pick.uri, secret=pick.secret)
    except PagemillError as error:
        capsule.about["notes"].append(f"no picture: {error}")
        return
    capsule.page = _png(pixels, row["dpi"])
    capsule.about["questions"] = _questions(pixels, row, config)


def _questions(pixels: Pixels, row: dict[str, Any], config: Config) -> list[dict[str, Any]]:
    """What a vision-language model is asked about this page: prompt, size of the picture, sampling."""
    if row["regions"] is None:
        return []
    regions = [
        Region(
            r["label"],
            Box(*r["bbox_px"]),
            r["score"],
            r["native_label"] or "",
            tuple(map(tuple, r["polygon_px"] or ())),
            r["order"],
        )
        for r in row["regions"]
    ]
    page = RasterPage(pixels, row["dpi"], row["width_pt"], row["height_pt"])
    return [
        {
            "regions": list(crop.regions), "task": crop.task, "prompt": crop.prompt, "height": crop.pixels.shape[0],
            "width": crop.pixels.shape[1], "min_pixels": crop.min_pixels, "max_pixels": crop.max_pixels,
            "sampling": {name: getattr(crop.sampling, name) for name in crop.sampling.__slots__},
        }
        for crop in plan_crops(page, regions, config.paddleocr_vl)
    ]  # fmt: skip


def _outline(points: Sequence[Sequence[float]] | None) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in points or ())


def _block(capsule: Capsule, row: dict[str, Any], block: int) -> None:
    found = next((b for b in row["blocks"] if b["block_index"] == block), None)
    if found is None:
        raise ConfigError(f"--block {block}: the page has blocks 0 to {len(row['blocks']) - 1}")
    if capsule.page is not None:
        from PIL import Image

        with Image.open(io.BytesIO(capsule.page), formats=("PNG",)) as image:
            x0, y0, x1, y1 = (round(side) for side in found["bbox_px"])
            box = max(0, x0), max(0, y0), min(image.width, x1), min(image.height, y1)
            if box[0] < box[2] and box[1] < box[3]:
                sink = io.BytesIO()
                image.crop(box).save(sink, "PNG")
                capsule.crop = sink.getvalue()


def _png(pixels: Pixels, dpi: float | None) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", dpi=(dpi or 144.0, dpi or 144.0))
    return sink.getvalue()
