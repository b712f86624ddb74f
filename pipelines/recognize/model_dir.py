"""Where a model's files are: a directory, an fsspec URI (copied once per node), or a hub id.

Invariant: a copied model takes its name only when it is whole, so a process that finds it may use it; its hash covers
every file that can change an answer, and is computed once for unchanged files. Nothing is fetched unless a URI or a hub
id was configured.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, EngineUnavailable, OutputUnwritable, SourceUnreachable, SourceUnreadable
from pipelines.source.remote import ObjectInfo, RemoteSource
from pipelines.store.filesystem import private_folder

_NEEDED = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
_MEANING = (".safetensors", ".json", ".jinja", ".model", ".txt", ".bin")  # what can change an answer; README, images do not


def locate(model: str | None, options: Mapping[str, Any] | None = None, cache: Path | None = None) -> Path:
    """The model's directory on this node; copies or downloads it if it is not here yet.

    Args:
        model: directory, URI or hub id (`owner/name`).
        options: passed to fsspec.
        cache: where copies are kept; None: beside the documents of this node.

    Raises:
        ConfigError: there is no such model, or it is not complete.
        EngineUnavailable: it could not be copied.
    """
    if not model:
        raise ConfigError("no model is configured: --set vllm.model_dir=DIRECTORY_URI_OR_HUB_ID")
    if "://" in model and not model.startswith("file://"):
        found = _copied(model.rstrip("/"), options or {}, cache or default_cache())
    elif os.path.isdir(path := os.path.expanduser(model.removeprefix("file://"))):
        found = Path(path).absolute()
    elif model.count("/") == 1 and not model.startswith(("/", ".", "~")):
        found = _from_hub(model)
    else:
        raise ConfigError(f"vllm.model_dir={model}: there is no such directory")
    missing = [name for name in _NEEDED if not (found / name).is_file()]
    if missing:
        raise ConfigError(f"vllm.model_dir={model}: {', '.join(missing)} missing in {found}; is it a PaddleOCR-VL checkpoint?")
    return found


def weights_hash(directory: Path, cache: Path | None = None) -> str:
    """SHA-256 (hex) over names and bytes of all files that can change an answer."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix in _MEANING)
    stats = [(str(path.relative_to(directory)), *_identity(path)) for path in files]
    key = hashlib.sha256(json.dumps([str(directory), stats]).encode()).hexdigest()
    known = (cache or default_cache()) / "hashes" / key  # 1.8 GB take seconds; a nightly run with nothing to do takes two
    try:
        return known.read_text("ascii")
    except OSError:
        pass
    digest = hashlib.sha256()
    for path, (name, *_) in zip(files, stats, strict=True):
        with open(path, "rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_whole(known, digest.hexdigest())
    return digest.hexdigest()


def weights_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def default_cache() -> Path:
    return private_folder(Path(tempfile.gettempdir()) / f"pagemill-models-{os.getuid()}")


def _identity(path: Path) -> tuple[int, int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _copied(uri: str, options: Mapping[str, Any], cache: Path) -> Path:
    """The copy of what the URI holds now: named by names, sizes and etags, so other weights get another directory."""
    try:
        source = RemoteSource(uri, options)
        objects = sorted(_below(source, source.path.rstrip("/") + "/"), key=lambda entry: entry[0])
        if not objects:
            raise ConfigError(f"vllm.model_dir={uri}: there is nothing")
        listing = [[name, info.size, info.etag] for name, info in objects]
        identity = hashlib.sha256(json.dumps([uri, listing]).encode()).hexdigest()[:16]
        target = cache / f"{uri.rsplit('/', 1)[-1]}-{identity}"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(cache / f"{target.name}.lock"):  # the engines of a node start together: one copies, the others wait
            if not target.is_dir():
                partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
                try:
                    for name, info in objects:
                        (partial / name).parent.mkdir(parents=True, exist_ok=True)
                        source.fetch(info.uri.partition("://")[2], str(partial / name))
                    os.replace(partial, target)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        return target
    except SourceUnreachable as error:
        raise ConfigError(f"vllm.model_dir={uri}: {error}") from None
    except (OSError, SourceUnreadable, OutputUnwritable) as error:
        raise EngineUnavailable(f"vllm.model_dir={uri} could not be copied to {cache}: {error}") from error


def _below(source: RemoteSource, root: str) -> Iterator[tuple[str, ObjectInfo]]:
    """(name below the root, object) of everything in a folder and its folders."""
    folders = [root]
    while folders:
        for page in source.pages(folders.pop()):
            folders += page.folders
            for info in page.objects:
                name = info.uri.partition("://")[2].lstrip("/").removeprefix(root.lstrip("/"))
                if ".." in name.split("/") or name.startswith("/"):
                    raise ConfigError(f"{info.uri}: no file of a model: its name leads out of the folder")
                if name and not name.endswith("/"):
                    yield name, info


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(
            f"vllm.model_dir={name} is no directory here; as a hub id it needs huggingface_hub: pip install 'pagemill[gpu]'"
        ) from None
    try:
        return Path(snapshot_download(name))  # its own cache and lock: once per node
    except Exception as error:  # the library raises a dozen kinds: no such repository, no network, offline mode, no room
        raise EngineUnavailable(
            f"vllm.model_dir={name} is no directory here, and the hub did not give it: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, "ascii")
    os.replace(temporary, path)
