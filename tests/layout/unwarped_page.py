"""A generated page, flattened by UVDoc, as an array on disk; run in the environment that has the library.

`python tests/layout/unwarped_page.py official|paddle|transformers FOLDER FILE.npy`: `official` is PaddleX's own DocPreprocessor.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines.config import load
from pipelines.layout.unwarp import load_unwarper
from pipelines.schema import Pixels


def page() -> Pixels:
    """Blocks of colour in three sizes, (700, 500, 3) uint8 RGB."""
    rng = np.random.default_rng(11)
    sizes = (10, 50, 100)
    layers = [rng.integers(0, 86, (700 // size, 500 // size, 3)).repeat(size, 0).repeat(size, 1) for size in sizes]
    return np.ascontiguousarray(sum(layers), np.uint8)


def official(folder: str) -> Pixels:
    os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"
    from paddlex.inference.pipelines.doc_preprocessor.pipeline import _DocPreprocessorPipeline

    unwarping = {"module_name": "image_unwarping", "model_name": "UVDoc", "model_dir": folder}
    config = {"use_doc_orientation_classify": False, "use_doc_unwarping": True, "SubModules": {"DocUnwarping": unwarping}}
    engine = "paddle_dynamic" if any(Path(folder).glob("*.safetensors")) else "paddle_static"
    pipeline = _DocPreprocessorPipeline(config, device="cpu", engine=engine)  # the wrapper asks for packages that it does not use
    (result,) = pipeline.predict(page()[:, :, ::-1].copy())
    return np.ascontiguousarray(result["output_img"][:, :, ::-1])


def main(who: str, folder: str, file: str) -> None:
    if who == "official":
        np.save(file, official(folder))
        return
    told = [f"layout.engine={who}", f"paddleocr_vl.doc_unwarping_model_dir={folder}", "layout.device=cpu"]
    np.save(file, load_unwarper(load(settings=told)).flat(page()))


if __name__ == "__main__":
    main(*sys.argv[1:])
