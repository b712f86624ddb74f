"""Training on several devices by Ray Train: the only file of this room that knows Ray.

Invariant: every worker runs the same steps; gradients are summed over all of them before each, so that the result does not
depend on which worker saw which packed sequence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.finetune import Job, train


def _worker(given: dict[str, Any]) -> None:
    import ray.train

    from training.loop import Peers

    context = ray.train.get_context()
    train(given["job"], Peers(context.get_world_rank(), context.get_world_size()))


def run(job: Job, workers: int, gpu: bool) -> None:
    """Blocks until all workers ended.

    Raises:
        ray.train.base_trainer.TrainingFailedError: a worker failed; its checkpoints are in `output`, and the same call resumes.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=ray.train.RunConfig(storage_path=str(Path(job.output).resolve() / "training" / "ray")),
    )
    trainer.fit()
