"""Photographed pages are flattened by UVDoc before layout sees them, as the official DocPreprocessor does.

Invariant: a flattened page has the size that it had; where its ink lies has changed, so its text layer stays behind, and
whoever draws it again flattens it again. Loads no library; the networks are behind the two engines' files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pipelines.config import Config
from pipelines.errors import ConfigError
from pipelines.schema import Pixels, RasterPage


class Unwarper(Protocol):
    @property
    def weights(self) -> str:
        """SHA-256 (hex); loads no model."""
        ...

    def flat(self, pixels: Pixels) -> Pixels:
        """(height, width, 3) uint8 RGB in and out, of one size."""
        ...


def unwarper_of(config: Config) -> Unwarper | None:
    """What flattens pages, where the configuration wants it.

    Raises:
        ConfigError: there is no model.
    """
    return load_unwarper(config) if config.paddleocr_vl.use_doc_unwarping else None


def load_unwarper(config: Config) -> Unwarper:
    """
    Raises:
        ConfigError: there is no model.
    """
    folder = config.paddleocr_vl.doc_unwarping_model_dir
    if folder is None:
        raise ConfigError("use_doc_unwarping needs a UVDoc model. Try: --set paddleocr_vl.doc_unwarping_model_dir=DIR")
    if not Path(folder).is_dir():
        raise ConfigError(f"paddleocr_vl.doc_unwarping_model_dir: no folder {folder}")
    if config.layout.engine == "paddle":
        from pipelines.layout.paddle_engine import PaddleUnwarper

        return PaddleUnwarper(Path(folder), config.layout.device)
    from pipelines.layout.transformers_engine import TransformersUnwarper

    return TransformersUnwarper(Path(folder), config.layout)


def flattened(page: RasterPage, unwarper: Unwarper) -> RasterPage:
    """A page with flat pixels and without what was measured on the others."""
    return replace(page, pixels=unwarper.flat(page.pixels), words=(), hidden_words=(), hints=())
