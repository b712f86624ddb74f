"""The engines that `pagemill tune` measures: which are on the card together, and what each has of its memory.

Invariant: no candidate is measured with less KV cache than it would have in a run, but for the bench's most (`_KV_MIB`); the
engines of one team are alone on the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from jobs.benches.engine import Setup, started
from jobs.benches.tuning import Candidate, needs_of
from pipelines.config import Config
from pipelines.recognize.gpu_budget import Budget

_KV_MIB = 12.0  # of a place, at most: what its answer and its picture take, and a half more
_Key = tuple[int, int, float]  # places, tokens of a step, MiB of KV cache a place


class Teams:
    """Context manager. Candidates that want the same of each engine share a team, as large as the largest wants it."""

    def __init__(
        self, config: Config, fits: Mapping[int, tuple[int, Budget]], total: int, held: int, model: Path, packers: int
    ) -> None:
        self._config, self._total, self._held, self._model, self._packers = config, total, held, model, packers
        self._running = ExitStack()
        self._key: _Key | None = None
        self._members: list[Any] = []
        self._most: dict[_Key, int] = {}
        for engines, (places, _) in fits.items():
            key = self._key_of(Candidate(engines, places, 1, config.vllm.max_num_batched_tokens))
            self._most[key] = max(engines, self._most.get(key, 0))

    def __enter__(self) -> Teams:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.close()

    def starts(self, candidate: Candidate) -> int:
        """How many engines would have to be started to measure it."""
        key = self._key_of(candidate)
        return 0 if key == self._key else self._most.get(key, candidate.engines)

    def of(self, candidate: Candidate) -> list[Any]:
        """Its engines; they start where they are not there, and others leave."""
        if count := self.starts(candidate):
            self._running.close()
            self._key = self._key_of(candidate)
            places, batched, kv_mib = self._key
            bench = {
                "kv_mib": kv_mib, "batched": batched, "eager": self._config.vllm.enforce_eager, "extra": "{}",
                "packers": self._packers,
            }  # fmt: skip
            setup = Setup(f"packed:{count}x{places}", "packed", count, places)
            self._members = self._running.enter_context(started([setup], self._model, bench))["packed"]
        return self._members[: candidate.engines]

    def _key_of(self, candidate: Candidate) -> _Key:
        needs = needs_of(self._config, candidate, self._total, self._held)
        room = needs.kv / needs.engines / candidate.places / (1 << 20)
        return candidate.places, candidate.batched, round(min(_KV_MIB, room), 2)
