"""P2 on a store that misbehaves: bad weather is ridden out, an outage ends the run in time, and the next one goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

import pipelines.store.filesystem as filesystem
from pipelines.source.remote import RemoteSource
from pipelines.store.objects import ObjectStore
from tests.conftest import Driver
from tests.faults.harness import SLOW, ends_like, parts, wait_for
from tests.readers import hurried
from tests.s3server import S3


def settings(s3: S3, **more: object) -> dict[str, object]:
    """A run whose output is behind the proxy that misbehaves."""
    given = {"store.storage_options": json.dumps(s3.options(faulty=True)), "store.retries": 4}
    return SLOW | given | {key.replace("__", "."): value for key, value in more.items()}


@pytest.mark.long  # in make test: fewer torn uploads (tests/e2e/test_s3.py); bodies that drip (below)
def test_torn_uploads_and_slow_bodies(driver: Driver, source: Path, undisturbed: pa.Table, s3: S3) -> None:
    output = s3.bucket() + "/out"
    s3.fault("torn", "PUT", "out/pages", times=3)
    s3.fault("torn", "PUT", "out/ledger/0/0000", times=2, skip=2)
    s3.fault("torn", "PUT", "out/markdown", times=1)
    s3.fault("slow", "GET", "out/pages", times=2)
    code, out = driver.run(str(source), output, settings=settings(s3))
    assert code == 0, out
    assert not [rule for rule in s3.faults.rules if rule["times"]], "a fault was never met"
    ends_like(undisturbed, output, source, s3.options())


@pytest.mark.parametrize(
    ("kind", "part", "words"),
    [
        ("forbidden", "/out", "not permitted: The provided token has expired"),  # every request, from one moment on
        pytest.param("slowdown", "/out", "tries)", marks=[pytest.mark.chaos, pytest.mark.long]),
        pytest.param("reset", "/out", "tries)", marks=[pytest.mark.chaos, pytest.mark.long]),
        pytest.param("slowdown", "/out/pages", "tries)", marks=[pytest.mark.chaos, pytest.mark.long]),  # only parts
        pytest.param("slowdown", "/plan/", "tries)", marks=[pytest.mark.chaos, pytest.mark.long]),  # only what feeds the graph
    ],
)
def test_an_outage_in_mid_run_ends_it_and_the_next_one_goes_on(
    driver: Driver, source: Path, undisturbed: pa.Table, s3: S3, kind: str, part: str, words: str
) -> None:
    """It neither hangs nor reads on for nothing."""
    output, before = s3.bucket() + "/out", s3.options()
    process = driver.start(str(source), output, settings=settings(s3, store__retries=1))
    wait_for(lambda: parts(output, before) > 1, process, "the second part")
    s3.fault(kind, "*", part, times=1 << 30)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 5, out
    assert "STORE_UNAVAILABLE" in out
    assert words in out
    assert "Traceback" not in out
    s3.faults.rules.clear()
    with hurried():
        code, out = driver.run(str(source), output, settings=settings(s3, ray__workers=1))
    assert code == 0, out
    ends_like(undisturbed, output, source, before)


def test_a_body_that_drips_for_ever_is_given_up(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out between two bytes never comes; what bounds a request is its time as a whole."""
    monkeypatch.setattr(filesystem, "_WHOLE", 1)
    bucket = s3.bucket()
    ObjectStore(bucket, s3.options()).put("key", b"x" * 4000)  # 200 s at a byte in 0.05 s
    store = ObjectStore(bucket, s3.options(faulty=True), retries=4, timeout_s=3)
    s3.fault("drip", "GET", "key", times=1)
    assert store.get("key") == b"x" * 4000
    assert store.counts["retried"] >= 1
    remote = RemoteSource(f"{bucket}/key", s3.options(faulty=True), retries=4, timeout_s=3)
    s3.fault("drip", "GET", "key", times=1)
    remote.fetch(remote.path, str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b"x" * 4000
    assert remote.counts["retried"] >= 1
