"""Clients of object stores: few of them, however many buckets a source names, and each with its own credentials."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from pipelines.source import remote
from pipelines.source.cache import DocumentCache
from pipelines.source.listing import look
from pipelines.source.remote import RemoteSource, RemoteSources
from pipelines.store.filesystem import open_filesystem
from pipelines.store.objects import ObjectStore
from tests.s3server import S3
from tests.source.test_web import LIMITS, served


def test_all_buckets_that_are_opened_alike_share_one_client(s3: S3, tmp_path: Path) -> None:
    """Each holds 13 MiB; a manifest may name thousands of buckets."""
    options, cache = s3.options(), DocumentCache(tmp_path / "cache", 1)
    for number in range(12):
        bucket = s3.bucket()
        ObjectStore(bucket, options).put("a/b.pdf", b"%d" % number)
        found = cache.fetch(f"{bucket}/a/b.pdf", options)
        assert found.path.read_bytes() == b"%d" % number
    assert len(cache._sources._open) == 1
    assert cache.requests == {"get": 12}


def test_one_bucket_that_is_opened_in_two_ways(s3: S3, tmp_path: Path) -> None:
    """A source and an output in one bucket, each with credentials and an endpoint of its own: canaries lie in the output."""
    bucket, cache = s3.bucket(), DocumentCache(tmp_path / "cache", 1)
    for name in ("source.pdf", "canary"):
        ObjectStore(bucket, s3.options()).put(name, name.encode())
    before = len(s3.faults.seen)
    cache.fetch(f"{bucket}/source.pdf", s3.options(faulty=True))
    seen = len(s3.faults.seen)
    assert seen > before
    cache.fetch(f"{bucket}/canary", s3.options())
    assert len(s3.faults.seen) == seen  # not by the way in which the source is reached
    assert cache.requests == {"get": 2}


def test_settings_of_a_users_own_add_to_ours(s3: S3) -> None:
    """One about addresses must not bring back the library's retries, which would multiply ours, or its ten connections."""
    own = {"s3": {"addressing_style": "path"}, "connect_timeout": 3}
    filesystem, _ = open_filesystem(s3.bucket(), s3.options() | {"config_kwargs": own}, 7)
    filesystem.connect()
    config = filesystem.s3.meta.config
    assert (config.s3["addressing_style"], config.connect_timeout, config.read_timeout) == ("path", 3, 7)
    assert config.retries["total_max_attempts"] == 1
    assert config.max_pool_connections > 32


def test_other_stores_have_a_client_a_bucket_and_few_at_a_time() -> None:
    files = fsspec.filesystem("memory")
    sources = RemoteSources()
    first = sources.of("memory://bucket-0/a", {})
    for number in range(3 * remote._CLIENTS):
        files.pipe(f"/bucket-{number}/a", b"words")
        sources.of("memory://bucket-0/a", {})  # what is in use stays
        assert sources.of(f"memory://bucket-{number}/a", {}).info(f"bucket-{number}/a") is not None
        assert len(sources._open) <= remote._CLIENTS
    assert sources.of("memory://bucket-0/a", {}) is first
    assert sources.counts == {"head": 3 * remote._CLIENTS}  # those of clients that are gone too


def test_a_changed_link_is_looked_at_by_its_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by no other library, which would follow any redirect for ever; what a server says nothing of is left alone."""

    def never(*_: object, **__: object) -> RemoteSource:
        raise AssertionError("a web link is no file system")

    monkeypatch.setattr(RemoteSources, "of", never)
    with served() as site:
        site.files["/a.pdf"] = b"words"
        site.etags["/a.pdf"] = "one"
        links = [site.link(path) for path in ("/a.pdf", "/none.pdf", "/locked", "/file")]
        found = look(links, {}, LIMITS)
    assert [found[link] is not None for link in links] == [True, False, False, False]
    info = found[links[0]]
    assert info is not None
    assert (info.size, info.etag) == (5, "one")
