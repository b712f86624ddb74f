"""A session that cannot begin says so by name."""

from __future__ import annotations

import pytest
import ray

from pipelines.cluster import session
from pipelines.config import load
from pipelines.errors import ClusterLost


def test_a_ray_that_does_not_start_is_tried_again_and_then_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, config = list[object](), load().ray

    def start(**options: object) -> None:
        tried.append(options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session.time, "sleep", lambda _: None)
    with pytest.raises(ClusterLost, match=r"No space left on device.*pagemill doctor"), session.Session(config, None):
        pass
    assert len(tried) == config.startup_tries
