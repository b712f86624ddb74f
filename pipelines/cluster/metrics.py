"""A run's figures as Prometheus metrics, through Ray: `ray_pagemill_*` at the metrics port of the driver's node.

Invariant: it decides nothing and costs a pass over the counters every few seconds; a cluster without Ray's metrics agent
(`ray[default]` is not installed) exports nothing and the run is the same. Names and meanings: docs/operations.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from pipelines.errors import ConfigError
from pipelines.observe.log import EventLog
from pipelines.observe.metrics import METRICS, PREFIX, Metric, values
from pipelines.observe.summary import Summary
from pipelines.recognize.gpu_memory import CardUse, cards_in_use

log = EventLog()
_EVERY_S = 5.0  # Ray's own agent reports every 10 s


class Exporter:
    """Context manager around what reads, within a Ray session."""

    def __init__(
        self, summary: Summary, every_s: float = _EVERY_S, cards: Callable[[], Sequence[CardUse]] = cards_in_use
    ) -> None:
        self._summary, self._every_s, self._cards = summary, every_s, cards
        self._made = {metric.name: _made(metric) for metric in METRICS}
        self._told: dict[tuple[str, str], float] = {}  # of counters: what they stand at
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> Exporter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._try_to_tell()

    def tell(self) -> None:
        """Hands every figure to Ray, as it is now."""
        for metric, label, value in values(self._summary, self._cards()):
            tags = {"run": self._summary.run_id} | ({metric.label: label} if metric.label else {})
            made = self._made[metric.name]
            if metric.kind == "gauge":
                made.set(value, tags)
                continue
            more = value - self._told.get((metric.name, label), 0.0)
            if more > 0:
                made.inc(more, tags)
                self._told[metric.name, label] = value

    def _run(self) -> None:
        while not self._stop.wait(self._every_s) and self._try_to_tell():
            pass

    def _try_to_tell(self) -> bool:
        try:
            self.tell()
            return True
        except Exception as error:  # figures are not worth a run
            log.warning("metrics_failed", error=error)
            return False


def _made(metric: Metric) -> Any:
    from ray.util.metrics import Counter, Gauge  # here: session.py has settings to make before Ray is imported

    kind = Counter if metric.kind == "counter" else Gauge
    return kind(PREFIX + metric.name, metric.words, ("run", metric.label) if metric.label else ("run",))


def port_option(port: int | None) -> dict[str, int]:
    """What `ray.init` of a private cluster is told.

    Raises:
        ConfigError: nothing could listen there.
    """
    if port is None:
        return {}
    if find_spec("opencensus") is None or find_spec("prometheus_client") is None:
        raise ConfigError(
            "observe.metrics_port needs Ray's agent: pip install 'pagemill[cluster]', or --set observe.metrics_port=null"
        )
    return {"_metrics_export_port": port}
