"""An engine by itself, as a program: `engine_alone.py SETTING...` starts it and prints its answer to the first specimen."""

from __future__ import annotations

import asyncio
import logging
import sys

from pipelines.config import load
from pipelines.recognize.specimen import specimens


def main() -> None:
    from pipelines.recognize.vllm_engine import VllmEngine

    logging.basicConfig(level=logging.INFO)
    config = load(settings=sys.argv[1:])
    engine = VllmEngine(config)
    crop, _ = specimens()[0].crops(config.paddleocr_vl)[0]
    print("answer", asyncio.run(engine.answer(crop)).text)
    engine.close()


if __name__ == "__main__":  # vLLM's engine process imports this file again
    main()
