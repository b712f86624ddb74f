"""`pagemill verify-model`: is a checkpoint what this code takes it for, and does it read?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.common import Conf, Settings, guarded
from pipelines.config import load
from pipelines.errors import ExitCode

if TYPE_CHECKING:
    from pipelines.recognize.vllm_compare import Comparison


def verify_model(
    model: Annotated[str, typer.Argument(help="checkpoint: a directory, an fsspec URI or a hub id")],
    constants_only: Annotated[
        bool, typer.Option(help="only its files, without loading the model: needs no GPU, no vLLM")
    ] = False,
    result: Annotated[Path | None, typer.Option(help="also write what was found there, as JSON")] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Hold every constant of MODEL against what the code assumes, compare both ways of encoding, and read two pages."""
    from pipelines.recognize.constants import differences, worst
    from pipelines.recognize.model_dir import locate, weights_hash

    config = load(conf or [], settings or [])
    folder = locate(model, config.vllm.storage_options)
    found = differences(folder)
    weights = weights_hash(folder)
    print(f"{folder}  weights {weights[:16]}  {_family(folder)}")
    for difference in found:
        print(f"  {difference}")
    print(f"constants: {len(found)} differ from what is assumed" if found else "constants: all are what is assumed")
    bad = worst(found) == "broken"
    report: dict[str, Any] = {"weights": weights, "constants": [str(difference) for difference in found]}
    if not constants_only and not bad:
        from pipelines.recognize.vllm_compare import compare

        comparison = compare(folder, config)
        problems = comparison.problems()
        print("\n".join(_comparison(comparison, problems)))
        report |= {"comparison": comparison.as_dict(), "problems": problems, "scores": _scores(comparison)}
        bad |= bool(problems)
    report["packed"] = worst(found) == "used" and not report.get("problems")
    if result is not None:
        result.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    sys.exit(ExitCode.UNHEALTHY if bad else ExitCode.OK)


def _family(folder: Path) -> str:
    from pipelines.errors import ConfigError
    from pipelines.recognize.checkpoint import format_of

    try:
        return {"v1": "chat template of v1", "v1.5": "chat template of 1.5 and 1.6"}[format_of(folder).family]
    except ConfigError:
        return "unknown chat template"


def _comparison(found: Comparison, problems: list[str]) -> list[str]:
    scores = _scores(found)
    similar = f"similarity {_share(scores['nid'])}, TEDS {_share(scores['teds'])}"
    features = f"{found.embeddings:.2g} apart" if found.embeddings is not None else f"not compared: {found.refusal}"
    return [
        f"patches: {found.pixels:.2g} apart from the checkpoint's own processor's",
        f"features: {features}",
        f"answers: {found.equal} of {found.crops} equal upstream's, token by token",
        *(f"  {problem}" for problem in problems),
        "packed path: " + ("upstream's runs instead" if problems or found.refusal else "verified"),
        f"pages: {scores['exact']:.0%} of {found.crops} crops exact, {similar}",
        *(
            f"  read {answer!r}, truth {truth!r}"
            for answer, truth in zip(found.answers, found.truths, strict=True)
            if answer != truth
        ),
    ]


def _share(value: float | None) -> str:
    return "not measured (pip install apted rapidfuzz)" if value is None else f"{value:.3f}"


def _scores(found: Comparison) -> dict[str, float | None]:
    """Exact share; NID over all answers, tables as HTML; TEDS over the tables. None where the libraries are missing."""
    from pipelines.recognize.otsl import otsl_to_html

    exact = sum(a == t for a, t in zip(found.answers, found.truths, strict=True)) / max(1, found.crops)
    try:
        from jobs.scoring.markup import tables
        from jobs.scoring.similarity import nid, teds
    except ModuleNotFoundError:
        return {"exact": exact, "nid": None, "teds": None}
    read, truth = (
        "\n\n".join(otsl_to_html(text) if task == "table" else text for text, task in zip(texts, found.tasks, strict=True))
        for texts in (found.answers, found.truths)
    )
    return {"exact": exact, "nid": nid(truth, read), "teds": teds(tables(truth), tables(read))}


if __name__ == "__main__":
    guarded(verify_model)
