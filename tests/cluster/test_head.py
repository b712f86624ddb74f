"""A head or a raylet that goes away is told once; one that answers, or answers again in time, is not."""

from __future__ import annotations

import queue
import socket

from pipelines.cluster.head import End, HeadWatch, listens
from pipelines.errors import ClusterLost


def test_a_head_that_is_gone_is_told() -> None:
    told: queue.Queue[ClusterLost] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert listens(address) is None
        watch = HeadWatch([End("the head", address, 0.1)], told.put, every_s=0.05)
        watch.start()
    assert address in str(told.get(timeout=60))
    watch.stop()
    assert watch.gone
    assert told.empty()


def test_a_raylet_that_is_gone_is_told_while_its_head_answers() -> None:
    told: queue.Queue[ClusterLost] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as head:
        with socket.create_server(("127.0.0.1", 0)) as raylet:
            ends = [
                End(name, f"127.0.0.1:{server.getsockname()[1]}", 0.1) for name, server in (("head", head), ("raylet", raylet))
            ]
        watch = HeadWatch(ends, told.put, every_s=0.05)
        watch.start()
        assert "raylet at 127.0.0.1" in str(told.get(timeout=60))
        watch.stop()


def test_a_head_that_answers_is_left_alone() -> None:
    told: queue.Queue[ClusterLost] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        watch = HeadWatch([End("the head", f"127.0.0.1:{server.getsockname()[1]}", 0.0)], told.put, every_s=0.01)
        watch.start()
        for _ in range(3):
            server.accept()[0].close()
        watch.stop()
    assert not watch.gone
    assert told.empty()
