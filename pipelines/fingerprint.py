"""The fingerprint: a hash of everything that can change a result.

Invariant: engines, their weights' hashes, their library versions and every option marked in `config.py` are in it; the
span size, the number of workers and the output's format version are not.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import metadata

from pipelines.config import Config
from pipelines.layout.orientation import Orientation
from pipelines.options import Prints, with_options

_READING = 3  # raised when a change of pagemill's own code changes results

# library whose version can change what an engine returns
_LIBRARIES = {
    "pymupdf": ("pymupdf", "pypdfium2", "pillow"),
    "pypdfium2": ("pymupdf", "pypdfium2", "pillow"),
    "embedded": ("rapidocr", "faster-paddle", "rapid-layout", "rapid-table", "onnxruntime", "opencv-python-headless"),
    "transformers": ("torch", "transformers", "opencv-python-headless"),
    "paddle": ("paddlepaddle", "paddlepaddle-gpu", "paddlex", "opencv-contrib-python"),  # as far as the driver has them
    "vllm": ("vllm", "torch", "transformers", "pillow"),
    "openai": ("pillow",),
}


# options of recognition alone: where nothing else changed, single blocks can be read again in the page as it was laid out
_OF_RECOGNITION = (
    "recognize.", "vllm.", "server.", "assemble.", "paddleocr_vl.min_pixels", "paddleocr_vl.max_pixels",
    "paddleocr_vl.vlm_extra_args", "paddleocr_vl.temperature", "paddleocr_vl.top_p", "paddleocr_vl.repetition_penalty",
    "paddleocr_vl.max_new_tokens",
)  # fmt: skip


def fingerprint_inputs(config: Config, weights: dict[str, str]) -> dict[str, object]:
    """All inputs in a fixed order; `weights` maps an engine's role to the SHA-256 of its weights."""
    engines = (config.raster.engine, config.layout.engine, config.recognize.engine)
    libraries = sorted({name for engine in engines for name in _LIBRARIES.get(engine, ())})
    return {
        "options": config.fingerprinted(),
        "weights": dict(sorted(weights.items())),
        "libraries": {name: _version(name) for name in libraries},
        "reading": _READING,
    }


def fingerprint(config: Config, weights: dict[str, str]) -> str:
    """16 hex digits."""
    return _digest(fingerprint_inputs(config, weights))


def layout_fingerprint(config: Config, weights: dict[str, str]) -> str:
    """The same of what decides which regions a page has and what is asked of them, before anything is read. 16 hex digits."""
    options = {key: value for key, value in config.fingerprinted().items() if not key.startswith(_OF_RECOGNITION)}
    libraries = sorted({name for engine in (config.raster.engine, config.layout.engine) for name in _LIBRARIES.get(engine, ())})
    return _digest(
        {
            "options": options,
            "weights": {role: digest for role, digest in sorted(weights.items()) if role != "recognize"},
            "libraries": {name: _version(name) for name in libraries},
            "reading": _READING,
        }
    )


def prints_of(config: Config, weights: dict[str, str]) -> Prints:
    """Fingerprint and layout fingerprint of documents, by their options.

    Args:
        weights: of the run's engines.
    """

    @lru_cache(maxsize=1024)
    def prints(options: str) -> tuple[str, str]:
        own = with_options(config, options)
        used = weights
        if own.paddleocr_vl.use_doc_orientation_classify and not config.paddleocr_vl.use_doc_orientation_classify:
            used = weights | {"orientation": Orientation(1).weights}
        return fingerprint(own, used), layout_fingerprint(own, used)

    return prints


def _digest(inputs: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"
