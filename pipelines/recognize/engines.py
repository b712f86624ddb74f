"""Which engine a configuration names, what it is called, and in which form it takes a crop. Loads no model.

Invariant: whoever needs an engine's name, hash or picture format (the driver, CPU workers) gets it without the library that
runs it; the engine itself is made in the process that asks it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any, cast

from pipelines.config import Config, RecognizeConfig
from pipelines.errors import ConfigError
from pipelines.recognize.base import Reader, VisionEngine
from pipelines.recognize.model_dir import locate, weights_hash
from pipelines.recognize.pack import PatchFormat, pack
from pipelines.recognize.vision import Form


@dataclass(slots=True, frozen=True)
class Identity:
    """What blocks and the fingerprint say of who reads."""

    name: str
    weights: str  # SHA-256 (hex) over all files that can change an answer; "" where they cannot be known
    patches: PatchFormat | None = None  # of an engine that takes packed crops


def is_vision(config: RecognizeConfig) -> bool:
    """Whether the engine answers questions about crops (a `VisionEngine`), rather than reading pages (a `Reader`)."""
    if config.engine in ("vllm", "openai"):
        return True
    return ":" in config.engine and hasattr(_brought(config), "answer")


def identify(config: Config) -> Identity:
    """
    Raises:
        ConfigError: there is no such engine or model.
        EngineUnavailable: the model could not be copied to this node.
    """
    if config.recognize.engine == "vllm":
        model = locate(config.vllm.model_dir, config.vllm.storage_options)
        try:
            patches = PatchFormat.of_directory(model)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{model}/preprocessor_config.json: {type(error).__name__}: {error}") from error
        return Identity(f"vllm/{model.name}", weights_hash(model), patches)
    if config.recognize.engine == "openai":
        return Identity(f"openai/{config.server.model or 'the served model'}", "")
    if is_vision(config.recognize):
        return Identity(str(_brought(config.recognize).name), "")
    reader = load_reader(config.recognize)
    return Identity(reader.name, reader.weights)


def load_reader(config: RecognizeConfig) -> Reader:
    """The configured reader of whole pages; `module:Class` is one that the user brings, called with the `recognize` section.

    Raises:
        ConfigError: there is no such reader, or its package is not installed.
    """
    if config.engine == "echo":
        from pipelines.recognize.echo import EchoReader

        return EchoReader(config)
    if config.engine == "embedded":
        from pipelines.recognize.embedded import EmbeddedReader

        return EmbeddedReader(config)
    return cast(Reader, _brought(config)(config))


def load_vision(config: Config) -> VisionEngine:
    """Starts the configured engine; `module:Class` is one that the user brings, called with the whole configuration.

    Raises:
        ConfigError: there is no such engine, or its package is not installed.
        EngineUnavailable: it cannot start here.
    """
    if config.recognize.engine == "vllm":
        try:
            from pipelines.recognize.vllm_engine import VllmEngine

            return VllmEngine(config)
        except ModuleNotFoundError as error:
            raise ConfigError(f"recognize.engine=vllm: {error}: pip install 'pagemill[gpu]'") from error
    if config.recognize.engine == "openai":
        from pipelines.recognize.openai_engine import OpenAiEngine

        return OpenAiEngine(config)
    return cast(VisionEngine, _brought(config.recognize)(config))


def wait_until_ready(config: Config) -> None:
    """Waits for an engine that runs elsewhere; called once a run has something to read.

    Raises:
        EngineUnavailable
    """
    if config.recognize.engine == "openai":
        from pipelines.recognize.openai_engine import wait_for_server

        wait_for_server(config)


def form_of(config: Config, identity: Identity) -> Form:
    """What CPU workers make of a crop before it goes to its engine."""
    if identity.patches is not None:
        patch, merge, resample = identity.patches.patch, identity.patches.merge, identity.patches.resample
        return lambda crop: replace(crop, packed=pack(crop.pixels, crop.min_pixels, crop.max_pixels, patch, merge, resample))
    if config.recognize.engine == "openai":
        from pipelines.recognize.openai_engine import encoded

        return lambda crop: replace(crop, encoded=encoded(crop, config.server))
    return lambda crop: crop


def _brought(config: RecognizeConfig) -> Any:
    """The class that `module:Class` names."""
    module, _, name = config.engine.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"recognize.engine={config.engine}: {error}; known: embedded, echo, vllm, openai, or module:Class"
        ) from error
