"""The fingerprint: a hash of everything that can change a result.

Invariant: engines, their weights' hashes, their library versions and every option marked in `config.py` are in it; the
span size, the number of workers and the output's format version are not.
"""

from __future__ import annotations

import hashlib
import json
from importlib import metadata

from pipelines.config import Config

# library whose version can change what an engine returns
_LIBRARIES = {
    "pymupdf": ("pymupdf", "pypdfium2", "pillow"),
    "pypdfium2": ("pymupdf", "pypdfium2", "pillow"),
    "embedded": ("rapidocr", "faster-paddle", "rapid-layout", "rapid-table", "onnxruntime", "opencv-python-headless"),
    "vllm": ("vllm", "torch", "transformers", "pillow"),
    "openai": ("pillow",),
}


def fingerprint_inputs(config: Config, weights: dict[str, str]) -> dict[str, object]:
    """All inputs in a fixed order; `weights` maps an engine's role to the SHA-256 of its weights."""
    engines = (config.raster.engine, config.layout.engine, config.recognize.engine)
    libraries = sorted({name for engine in engines for name in _LIBRARIES.get(engine, ())})
    return {
        "options": config.fingerprinted(),
        "weights": dict(sorted(weights.items())),
        "libraries": {name: _version(name) for name in libraries},
        "reading": 2,  # raised when a change of pagemill's own code changes results
    }


def fingerprint(config: Config, weights: dict[str, str]) -> str:
    """16 hex digits."""
    canonical = json.dumps(fingerprint_inputs(config, weights), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "absent"
