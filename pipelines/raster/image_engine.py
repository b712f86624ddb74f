"""Pillow as a rasterizer of image documents: each frame of a TIFF, PNG, JPEG or WebP is a page. The only importer of `PIL`
that opens untrusted files.

Invariant: runs in the child process only; a frame's declared size is judged before it is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.errors import DamagedDocument, NoPages, PageDamaged
from pipelines.raster.sizing import fitting_dpi
from pipelines.schema import Probe, RasterPage

_FORMATS = ("TIFF", "PNG", "JPEG", "WEBP")  # MPO opens as JPEG; named here, Pillow would fail over it by KeyError
_DEFAULT_DPI = 144.0  # of an image that does not say; what such scans are read at
_MOST_DECODED = 400_000_000  # pixels of one frame before it is refused; a decoded A0 at 300 dpi has 140 million


class ImageRasterizer:
    """Rasterizer over one open image file."""

    name = "pillow"

    def __init__(self) -> None:
        from PIL import Image, ImageFile, ImageOps

        self._image: Any = Image
        self._files: Any = ImageFile
        self._ops: Any = ImageOps
        Image.MAX_IMAGE_PIXELS = None  # judged by _MOST_DECODED and by the memory limit of the process
        self._open: Any = None
        self._path = ""

    def open(self, path: str, passwords: Sequence[str]) -> Probe:
        try:
            opened = self._image.open(path, formats=_FORMATS)
            count = int(getattr(opened, "n_frames", 1))
        except MemoryError:
            raise
        except Exception as error:
            raise DamagedDocument(f"Pillow cannot open it: {error}") from None
        if count <= 0:
            raise NoPages("the image has no frames")
        self._open, self._path = opened, path
        form = {"MPO": "jpeg"}.get(opened.format, str(opened.format).lower())
        # only a TIFF's frames are pages; those of an animation or a stereo photograph are one picture
        return Probe(form, count if form == "tiff" else 1)

    def render(self, page_index: int, dpi: float, max_megapixels: float) -> RasterPage:
        try:
            image, lost = self._decoded(page_index)
            own = _own_dpi(image)
            upright = self._ops.exif_transpose(image)
            pixels, scale = self._shrunk(upright, own, dpi, max_megapixels)
        except (PageDamaged, MemoryError):
            raise
        except Exception as error:
            raise PageDamaged(f"Pillow cannot decode the image: {error}") from None
        flags = (*lost, *(("downscaled",) if scale < 0.999 and own * scale < dpi * 0.999 else ()))
        final = own * scale
        return RasterPage(pixels, final, pixels.shape[1] * 72.0 / final, pixels.shape[0] * 72.0 / final, flags=flags)

    def _decoded(self, page_index: int) -> tuple[Any, tuple[str, ...]]:
        """A frame with its pixels, and `truncated` when the file ends before they do: the rest is grey."""
        try:
            return self._frame(page_index), ()
        except OSError:
            self._open = self._image.open(self._path, formats=_FORMATS)  # a decoder that broke off does not go on
            self._files.LOAD_TRUNCATED_IMAGES = True
            try:
                return self._frame(page_index), ("truncated",)
            finally:
                self._files.LOAD_TRUNCATED_IMAGES = False

    def _frame(self, page_index: int) -> Any:
        image = self._open
        image.seek(page_index)
        width, height = image.size
        if width * height > _MOST_DECODED:
            raise PageDamaged(f"the image declares {width} x {height} pixels")
        if image.format == "JPEG":
            image.draft("RGB", None)
        image.load()
        return image

    def _shrunk(self, image: Any, own: float, dpi: float, max_megapixels: float) -> tuple[Any, float]:
        """RGB pixels at no more than the wanted resolution; a smaller image is never blown up."""
        width_pt, height_pt = image.width * 72.0 / own, image.height * 72.0 / own
        scale = min(1.0, fitting_dpi(width_pt, height_pt, max(dpi, _DEFAULT_DPI), max_megapixels) / own)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            image = self._image.new("RGB", rgba.size, (255, 255, 255))
            image.paste(rgba, mask=rgba.getchannel("A"))
        elif image.mode.startswith("I;16") or image.mode == "I":
            image = self._image.fromarray((np.asarray(image, np.uint32) >> 8).clip(0, 255).astype(np.uint8))
        image = image.convert("RGB")
        if scale < 0.999:
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            image = image.resize(size, self._image.Resampling.BOX if scale < 0.5 else self._image.Resampling.LANCZOS)
        return np.ascontiguousarray(np.asarray(image, np.uint8)), scale

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def _own_dpi(image: Any) -> float:
    """What the file says, when it is plausible for a page: 36 to 1200."""
    said = image.info.get("dpi")
    try:
        value = float(said[0])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return _DEFAULT_DPI
    return value if 50 <= value <= 1200 and value != 72 else _DEFAULT_DPI
