"""`pagemill finetune`: trains a PaddleOCR-VL on a JSONL file in ERNIEKit's SFT format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.common import guarded
from pipelines.errors import ConfigError


def finetune(
    data: Annotated[Path, typer.Argument(help="JSONL in ERNIEKit's SFT format; docs/finetuning.md")],
    output: Annotated[Path, typer.Argument(help="folder for the trained checkpoint; with several workers, one that all see")],
    model: Annotated[Path, typer.Option(help="checkpoint directory whose weights training begins from")],
    base_model: Annotated[
        Path | None, typer.Option(help="released checkpoint: files that MODEL lacks are copied from it")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML; ERNIEKit's recipe for PaddleOCR-VL is accepted as it is")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe")] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="JSONL that is measured before and after")] = None,
    workers: Annotated[int, typer.Option(min=1, help="devices; more than one train through Ray")] = 1,
    gpu: Annotated[bool, typer.Option(help="whether each worker has a GPU (with several workers)")] = True,
    check: Annotated[bool, typer.Option(help="only check DATA (and --eval), line by line")] = False,
) -> None:
    """Train on DATA, write a checkpoint that vLLM loads to OUTPUT."""
    import importlib.util

    from training import recipe as recipes

    chosen, unused = recipes.load(recipe, dict(_pair(setting) for setting in settings or []))
    if unused:
        print(f"without effect here: {', '.join(unused)}")
    if check:
        raise typer.Exit(_check([data, *([evaluation] if evaluation else [])]))
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise ConfigError("training needs PyTorch and transformers: pip install 'pagemill[train]'")
    from training.finetune import Job, complete_model
    from training.finetune import finetune as run_here

    job = complete_model(Job(data, output, model, chosen, evaluation, base_model))
    if workers > 1:
        from training.distributed import run

        run(job, workers, gpu)
    else:
        run_here(job)
    print(f"trained: {output}")


def _check(files: list[Path]) -> int:
    """Prints what each file holds, or what is wrong with it; the exit code."""
    from pipelines.errors import ExitCode
    from training import sft

    bad = False
    for file in files:
        found = sft.check(file)
        bad |= bool(found.problems)
        kinds = ", ".join(f"{count} {task}" for task, count in found.tasks.most_common())
        print(f"{file}: {len(found.records)} samples ({kinds or 'none'}), {len(found.problems)} problems")
        for line in sft.problems_text(found.problems, most=100):
            print(f"  {line}")
    return ExitCode.BAD_CONFIG if bad else ExitCode.OK


def _pair(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {setting}: expected key=value, e.g. --set learning_rate=1e-5")
    return key.strip(), value


if __name__ == "__main__":
    guarded(finetune)
