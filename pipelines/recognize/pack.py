"""Crops to patches: what a PaddleOCR-VL engine needs of a picture, made by any CPU worker.

Image work takes 5 to 30 ms of CPU a crop; done inside an engine's process it starves the GPU, so it is done here, with
Pillow and NumPy alone. Invariant: the patches are, byte for byte, what the checkpoint's Hugging Face image processor
(its PIL form) holds before it normalises, and `byte_table` gives its float32 value of each byte, bit for bit. They stay
uint8 on their way (588 bytes a patch, half of bf16); whoever has the GPU normalises.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.errors import UnusableCrop
from pipelines.recognize.base import Packed
from pipelines.schema import Pixels

MAX_ASPECT = 200  # the released models' processor refuses more


@dataclass(slots=True, frozen=True)
class PatchFormat:
    """What a checkpoint's preprocessor_config.json says of its pictures. Mean and std have no default: sources disagree."""

    mean: tuple[float, float, float]  # R, G, B, of values in 0..1
    std: tuple[float, float, float]
    patch: int = 14  # pixels, both ways
    merge: int = 2  # patches that become one token, both ways
    rescale: float = 1 / 255
    resample: int = 3  # Pillow's number: bicubic

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> PatchFormat:
        """From the parsed preprocessor_config.json.

        Raises:
            KeyError: mean or std are missing.
            ValueError: it describes several frames, or pictures that are not rescaled and normalised.
        """
        if config.get("temporal_patch_size", 1) != 1 or not (config.get("do_rescale", True) and config.get("do_normalize", True)):
            raise ValueError("only single frames that are rescaled and normalised are known")
        mean, std = (tuple(float(v) for v in config[key]) for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError("image_mean and image_std need three values")
        return cls(
            mean, std, int(config.get("patch_size", 14)), int(config.get("merge_size", 2)),
            float(config.get("rescale_factor", 1 / 255)), int(config.get("resample", 3)),
        )  # fmt: skip

    @classmethod
    def of_directory(cls, model: Path) -> PatchFormat:
        return cls.of(json.loads((model / "preprocessor_config.json").read_text("utf-8")))


def target_size(height: int, width: int, min_pixels: int, max_pixels: int, factor: int = 28) -> tuple[int, int]:
    """(height, width) in pixels that a picture is scaled to: multiples of `factor`, in the budget where its shape allows.

    Raises:
        UnusableCrop: it has no pixels, or is more than 200 times as long as it is wide.
    """
    if height < 1 or width < 1:
        raise UnusableCrop(f"a crop of {width} x {height} pixels")
    if height < factor:
        height, width = factor, round(width * factor / height)
    if width < factor:
        height, width = round(height * factor / width), factor
    if (aspect := max(height, width) / min(height, width)) > MAX_ASPECT:
        raise UnusableCrop(f"a crop whose sides are as 1 to {aspect:.0f}; {MAX_ASPECT} is the limit")
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = max(1, math.floor(height / shrink / factor)), max(1, math.floor(width / shrink / factor))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = math.ceil(height * grow / factor), math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def pack(pixels: Pixels, min_pixels: int, max_pixels: int, patch: int = 14, merge: int = 2, resample: int = 3) -> Packed:
    """Scales a crop (height, width, 3; uint8 RGB) into its pixel budget and cuts it into patches.

    Raises:
        UnusableCrop: see `target_size`.
    """
    height, width = target_size(pixels.shape[0], pixels.shape[1], min_pixels, max_pixels, patch * merge)
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling(resample))
    rows, columns = height // patch, width // patch
    cut = np.asarray(picture).reshape(rows, patch, columns, patch, 3).transpose(0, 2, 4, 1, 3)
    return Packed(np.ascontiguousarray(cut).reshape(rows * columns, 3, patch, patch), (1, rows, columns))


def byte_table(form: PatchFormat) -> npt.NDArray[np.float32]:
    """(3, 256) float32: the normalised value of each byte of R, G and B.

    The steps and their precisions are the Hugging Face processor's: rescaled in float64, the rest in float32.
    """
    scaled = (np.arange(256, dtype=np.float64) * form.rescale).astype(np.float32)
    mean, std = np.array(form.mean, np.float32), np.array(form.std, np.float32)
    return (scaled[None] - mean[:, None]) / std[:, None]


def normalise(patches: npt.NDArray[np.uint8], form: PatchFormat) -> npt.NDArray[np.float32]:
    """Patches (n, 3, p, p) as the float32 that a processor would hand to the model; for engines that take no uint8."""
    return np.take_along_axis(byte_table(form)[None], patches.reshape(len(patches), 3, -1).astype(np.intp), axis=2).reshape(
        patches.shape
    )
