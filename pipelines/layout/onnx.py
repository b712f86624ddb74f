"""How the embedded models run: one way to open a file of weights with ONNX Runtime. The only importer of `onnxruntime`.

Invariant: as many threads as asked for, and memory kept between calls of one size. The packages that bring the models give
memory back after every call; the kernel then clears the same pages again and again: 0.6 of 2.4 CPU-seconds of a page of OCR
were that (system time, measured).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_model(path: Path, threads: int, *, keeps: bool = True) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        keeps: memory, from one call to the next; not for inputs of ever new sizes, which would leave it in pieces.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = keeps
    provider = ("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    return onnxruntime.InferenceSession(str(path), options, providers=[provider])


def forgetting() -> Any:
    """Options of one call after which the memory is given back: for an input of another size than the last."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
