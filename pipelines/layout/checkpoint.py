"""What a PP-DocLayoutV2/V3 checkpoint says of itself: its classes, its input size, how pixels are normalised.

Invariant: every constant comes from the files of the checkpoint; where two of them disagree the one is taken that the
official pipeline takes, and a checkpoint that lacks something is refused by name. Loads no model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.errors import ConfigError
from pipelines.layout.labels import OFFICIAL_LABELS

_ARCHITECTURES = {"pp_doclayout_v2": "PP-DocLayoutV2", "pp_doclayout_v3": "PP-DocLayoutV3"}
_CHUNK = 1 << 24


@dataclass(slots=True, frozen=True)
class LayoutCheckpoint:
    """
    Attributes:
        architecture: PP-DocLayoutV2 or PP-DocLayoutV3.
        labels: name of each class number.
        height, width: of the model's input in pixels; a page is stretched to it.
        mean, std: per channel (RGB), of values from 0 to 1.
    """

    folder: Path
    architecture: str
    labels: tuple[str, ...]
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_checkpoint(folder: Path) -> LayoutCheckpoint:
    """
    Raises:
        ConfigError: a file is missing, or is not what it should be.
    """
    config, processor = _json(folder / "config.json"), _json(folder / "preprocessor_config.json")
    kind = str(config.get("model_type"))
    if kind not in _ARCHITECTURES:
        raise ConfigError(f"{folder}: model_type {kind!r} is no layout model; known: {', '.join(_ARCHITECTURES)}")
    size = processor.get("size") or {}
    try:
        height, width = int(size["height"]), int(size["width"])
        rescale = 255 * (float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0)
        mean, std = (_triple(processor, key) for key in ("image_mean", "image_std"))
        if not processor.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder}/preprocessor_config.json: {type(error).__name__}: {error}") from None
    scaled = tuple(value / rescale for value in mean), tuple(value / rescale for value in std)
    return LayoutCheckpoint(folder, _ARCHITECTURES[kind], _labels(folder, config), height, width, *map(_three, scaled))


def unwarper_size(folder: Path) -> tuple[int, int]:
    """Height and width in pixels of what UVDoc sees of a page.

    Raises:
        ConfigError: the files do not say it.
    """
    config, processor = _json(folder / "config.json"), _json(folder / "preprocessor_config.json")
    if config.get("model_type") != "uvdoc":
        raise ConfigError(f"{folder}: model_type {config.get('model_type')!r} is not uvdoc")
    try:
        return int(processor["size"]["height"]), int(processor["size"]["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder}/preprocessor_config.json: {type(error).__name__}: {error}") from None


def weights_hash(folder: Path) -> str:
    """SHA-256 (hex) over the files that decide what the model says, by name."""
    digest = hashlib.sha256()
    decisive = ("*.safetensors", "*.pdiparams", "*.pdmodel", "config.json", "inference.*", "preprocessor_config.json")
    files = sorted({path for pattern in decisive for path in folder.glob(pattern)})
    if not files:
        raise ConfigError(f"no model in {folder}")
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _labels(folder: Path, config: dict[str, Any]) -> tuple[str, ...]:
    """`label_list` of inference.yml before `id2label`: converters collapse the latter ("formula" twice)."""
    listed: list[str] = []
    if (folder / "inference.yml").is_file():
        told = yaml.safe_load((folder / "inference.yml").read_text("utf-8"))
        listed = [str(label) for label in (told or {}).get("label_list") or []]
    names = config.get("id2label") or {}
    by_number = [str(names[key]) for key in sorted(names, key=int)]
    count = int(config.get("num_labels") or len(by_number) or len(listed))
    if listed:
        labels = listed
    elif len(set(by_number)) == len(by_number) and set(by_number) <= set(OFFICIAL_LABELS):
        labels = by_number
    else:
        labels = list(OFFICIAL_LABELS)  # collapsed or unnamed: a class is known by its number
    if len(labels) != count:
        raise ConfigError(f"{folder}: {len(labels)} labels for {count} classes; is inference.yml of another model?")
    return tuple(labels)


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; a folder as the hub has it is expected") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds no object")
    return loaded


def _triple(processor: dict[str, Any], key: str) -> tuple[float, float, float]:
    values = processor[key]
    if isinstance(values, int | float):
        values = [values] * 3
    return _three(values)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
