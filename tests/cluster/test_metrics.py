"""A real scrape: every figure of a run is there with its value, and the shipped dashboard asks for nothing else."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.observe.metrics import METRICS, PREFIX, values
from pipelines.observe.summary import Summary
from tests.cluster.shown_figures import cards, figures
from tests.conftest import ROOT

AGENT = find_spec("opencensus") is not None and find_spec("prometheus_client") is not None
needs_agent = pytest.mark.skipif(not AGENT, reason="Ray's metrics agent is not installed: pip install 'pagemill[cluster]'")
DASHBOARD = ROOT / "conf" / "deploy" / "grafana" / "pagemill.json"
Samples = dict[tuple[str, str], float]  # (name, the one label's value) -> value
LABELS = {metric.label for metric in METRICS} - {""}


@pytest.fixture(scope="module")
def scraped() -> Iterator[Samples]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.shown_figures", str(port)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, "RAY_metrics_report_interval_ms": "1000"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        wanted = asked()
        found: Samples = {}
        until = time.monotonic() + 300  # Ray's agent comes up beside the cluster, late on a loaded machine
        while time.monotonic() < until and not wanted <= {name for name, _ in found}:
            time.sleep(1)
            found = scrape(port)
        yield found
    finally:
        process.communicate(b"", timeout=120)


def scrape(port: int) -> Samples:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(s.name, next((s.labels[name] for name in LABELS & set(s.labels)), "")): s.value for s in samples}


def expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    return [target["expr"] for panel in panels(board["panels"]) for target in panel.get("targets", [])] + [
        variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"
    ]


def panels(some: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in some:
        yield panel
        yield from panels(panel.get("panels", []))


def asked() -> set[str]:
    return {name for expression in expressions() for name in re.findall(r"\bray_[a-z_]+", expression)}


@needs_agent
def test_every_figure_is_in_a_scrape(scraped: Samples) -> None:
    compared = 0
    for metric, label, value in values(figures(), cards()):
        name = f"ray_{PREFIX}{metric.name}" + ("_total" if metric.kind == "counter" else "")
        assert (name, label) in scraped, sorted(name for name, _ in scraped if "pagemill" in name)
        if not metric.name.startswith("pool_"):  # these go on while the graph runs
            assert scraped[name, label] == pytest.approx(value), name
            compared += 1
    assert compared >= 30
    pool = "rasterize, layout, recognize"
    assert scraped["ray_pagemill_pool_blocked_seconds_total", pool] == pytest.approx(6.0, rel=0.01)  # 2 workers, 3 s
    assert scraped["ray_pagemill_pool_starved_seconds_total", pool] == pytest.approx(2.0, rel=0.05)
    assert scraped["ray_pagemill_pool_present_seconds_total", pool] > 0


@needs_agent
def test_the_dashboard_asks_only_for_what_is_there(scraped: Samples) -> None:
    assert asked() - {name for name, _ in scraped} == set()
    assert "ray_pagemill_gpu_busy_percent" in asked()


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    shown = list(panels(board["panels"]))
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert all(panel["title"] and panel.get("description") for panel in shown if panel["type"] != "row")
    assert all(target["expr"].count("(") == target["expr"].count(")") for panel in shown for target in panel.get("targets", []))
    exported = {f"ray_{PREFIX}{metric.name}" + ("_total" if metric.kind == "counter" else "") for metric in METRICS}
    assert {name for name in asked() if "pagemill" in name} <= exported
    assert len(exported - asked()) <= 2  # nearly all that is exported is shown
    for expression in expressions():
        assert "ray_pagemill" not in expression or 'run=~"$run"' in expression or expression.startswith("label_values"), (
            expression
        )


def test_values_are_those_of_the_report() -> None:
    summary = figures()
    shown = summary.as_dict()
    by_name: dict[str, dict[str, float]] = {}
    for metric, label, value in values(summary):
        by_name.setdefault(metric.name, {})[label] = value
    assert set(by_name) == {metric.name for metric in METRICS if metric.label != "gpu"}
    assert by_name["pages"] == shown["pages"]
    assert by_name["tokens"] == {"": shown["quality"]["tokens"]}
    assert by_name["waiting_pages"] == {"": 60}
    assert values(Summary("run", "", "", "", {})) is not None
    assert [value for _, _, value in values(Summary("run", "", "", "", {})) if value] == []


def test_counters_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cluster import metrics

    told: dict[str, list[float]] = {}

    class Made:
        def __init__(self, metric: Any) -> None:
            self.name = metric.name

        def inc(self, more: float, tags: dict[str, str]) -> None:
            assert more > 0
            assert tags["run"] == summary.run_id
            told.setdefault(self.name + tags.get("state", ""), []).append(more)

        def set(self, value: float, tags: dict[str, str]) -> None:
            told.setdefault(self.name, []).append(value)

    monkeypatch.setattr(metrics, "_made", Made)
    summary = Summary("run", "", "", "", {})
    exporter = metrics.Exporter(summary)
    for pages in (1, 1, 5):
        summary.pages["ok"] = pages
        exporter.tell()
    assert told["pagesok"] == [1.0, 4.0]
    assert told["planned_pages"] == [0.0, 0.0, 0.0]


def test_a_port_without_an_agent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.cluster import metrics

    assert metrics.port_option(None) == {}
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pagemill\[cluster\]"):
        metrics.port_option(9100)
    with pytest.raises(ConfigError, match="metrics_port"):
        load(settings=["observe.metrics_port=0"])
