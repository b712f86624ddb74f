"""Where a model comes from: a directory, an S3 URI that a node copies once, a hub id; and what its hash says."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import fsspec
import pytest

from pipelines.config import load
from pipelines.errors import ConfigError, EngineUnavailable
from pipelines.fingerprint import fingerprint
from pipelines.recognize.engines import identify
from pipelines.recognize.model_dir import locate, weights_hash
from tests.conftest import ROOT
from tests.s3server import S3

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "PaddleOCR-VL"))


def test_a_directory_is_used_where_it_is(model: Path) -> None:
    assert locate(str(model)) == model
    assert locate(f"file://{model}") == model


def test_what_is_no_model_is_said(model: Path, tmp_path: Path) -> None:
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"preprocessor_config\.json missing"):
        locate(str(model))
    with pytest.raises(ConfigError, match="there is no such directory"):
        locate(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"--set vllm\.model_dir="):
        locate(None)


def test_the_hash_is_of_the_bytes_and_computed_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    first = weights_hash(model, cache)
    assert len(first) == 64
    again = Path(shutil.copytree(model, tmp_path / "elsewhere"))
    assert weights_hash(again, cache) == first  # the same bytes at another place
    (again / "README.md").write_text("words")
    assert weights_hash(again, cache) == first  # changes no answer
    (again / "chat_template.jinja").write_text((again / "chat_template.jinja").read_text() + " ")
    changed = weights_hash(again, cache)
    assert changed != first
    weights = again / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert weights_hash(again, cache) not in (first, changed)
    monkeypatch.setattr("pipelines.recognize.model_dir.hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
    assert weights_hash(model, cache) == first


def test_the_hash_is_in_the_fingerprint_and_the_place_is_not(model: Path, tmp_path: Path) -> None:
    def found(place: Path) -> str:
        config = load(settings=["recognize.engine=vllm", f"vllm.model_dir={place}"])
        identity = identify(config)
        return fingerprint(config, {"recognize": identity.weights})

    other = Path(shutil.copytree(model, tmp_path / "moved"))
    assert found(model) == found(other)
    config = other / "config.json"
    config.write_text(config.read_text() + "\n")
    assert found(model) != found(other)


def _locate(uri: str, options: dict[str, object], cache: Path, start: object, counted: Path) -> None:
    from pipelines.source.remote import RemoteSource

    fetch = RemoteSource.fetch

    def counting(self: RemoteSource, path: str, file_name: str) -> None:
        with counted.open("a") as file:
            file.write("x")
        fetch(self, path, file_name)

    RemoteSource.fetch = counting  # type: ignore[method-assign]
    locate(uri, options, cache)


def test_a_uri_is_copied_once_a_node(model: Path, tmp_path: Path, s3: S3) -> None:
    """The engines of a node start together: one copies, the others wait; other weights there are another copy."""
    bucket, cache, counted = s3.bucket(), tmp_path / "cache", tmp_path / "gets"
    uri = f"{bucket}/models/PaddleOCR-VL"
    filesystem = fsspec.filesystem("s3", **s3.options())
    filesystem.put(str(model) + "/", uri.removeprefix("s3://") + "/", recursive=True)
    context = multiprocessing.get_context("spawn")
    engines = [context.Process(target=_locate, args=(uri, s3.options(), cache, None, counted)) for _ in range(3)]
    for engine in engines:
        engine.start()
    for engine in engines:
        engine.join(120)
        assert engine.exitcode == 0
    files = [path for path in model.iterdir() if path.is_file()]
    assert len(counted.read_text()) == len(files)
    copy = locate(uri, s3.options(), cache)
    assert weights_hash(copy, cache) == weights_hash(model, cache)
    assert not list(cache.glob(".partial-*"))
    filesystem.pipe_file(f"{uri.removeprefix('s3://')}/generation_config.json", b'{"eos_token_id": 2, "changed": 1}')
    other = locate(uri, s3.options(), cache)
    assert other != copy
    assert copy.is_dir()  # an engine may still use it


def test_a_uri_without_a_model_and_a_store_that_fails(tmp_path: Path, s3: S3) -> None:
    with pytest.raises(ConfigError, match="there is nothing"):
        locate(f"{s3.bucket()}/models/none", s3.options(), tmp_path)
    with pytest.raises((EngineUnavailable, ConfigError), match=r"vllm\.model_dir=s3://no-such"):
        locate("s3://no-such-bucket-here/model", s3.options(), tmp_path)


def test_a_hub_id_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    with pytest.raises((ConfigError, EngineUnavailable), match=r"PaddlePaddle/PaddleOCR-VL is no directory here"):
        locate("PaddlePaddle/PaddleOCR-VL")
