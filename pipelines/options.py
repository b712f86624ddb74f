"""Options of single documents: what a manifest's row may set over the run's configuration.

Invariant: a document's options travel as one canonical string ("" for none) through plan, ledger and workers, and a fingerprint
is made of the configuration that they resolve to; what needs an engine of its own is refused, by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from pipelines.config import Config, PaddleOcrVlConfig
from pipelines.errors import ConfigError

_PER_RUN = frozenset({"pipeline_version", "strict_parity", "use_doc_unwarping", "doc_unwarping_model_dir"})
PER_DOCUMENT = tuple(name for name in PaddleOcrVlConfig.model_fields if name not in _PER_RUN)
_SPOTTING_PIXELS = 1_605_632

Prints = Callable[[str], tuple[str, str]]  # of a document's options: its fingerprint and its layout's


def per_run(name: str) -> bool:
    """Whether a column of this name asks for something that only a whole run can have."""
    section, dot, key = name.partition(".")
    return name in _PER_RUN or bool(dot and section in Config.model_fields and (section != "paddleocr_vl" or key in _PER_RUN))


def canonical(config: Config, given: Mapping[str, Any]) -> str:
    """Options by key of `paddleocr_vl` as the string that stands for them.

    Raises:
        ConfigError: a value that the key does not take, or that the run's engine is not set up for; words begin with the key.
    """
    if not given:
        return ""
    if "prompt_label" in given and config.layout.engine != "none":
        raise ConfigError("prompt_label: is for pages without layout. Try: --set layout.engine=none")
    try:
        options = PaddleOcrVlConfig.model_validate(config.paddleocr_vl.model_dump() | dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else next(iter(given))
        raise ConfigError(f"{name}: {first['msg']} (got {first['input']!r})") from None
    if config.recognize.engine == "vllm":
        _fits(options, config.paddleocr_vl)
    chosen = options.model_dump(mode="json", include=set(given))
    return json.dumps(chosen, sort_keys=True, separators=(",", ":"))


def with_options(config: Config, options: str) -> Config:
    """The configuration of a document with these options.

    Raises:
        ConfigError: they do not go with it.
    """
    if not options:
        return config
    try:
        section = PaddleOcrVlConfig.model_validate(config.paddleocr_vl.model_dump() | json.loads(options))
    except (ValidationError, ValueError) as error:
        raise ConfigError(f"options of a document, {options}: {str(error).splitlines()[0]}") from None
    if config.layout.engine == "none":
        section = section.whole_page()
    return config.model_copy(update={"paddleocr_vl": section})


def resolver(config: Config) -> Callable[[str], Config]:
    """`with_options` of one configuration, that remembers."""
    return lru_cache(maxsize=1024)(lambda options: with_options(config, options))


def _fits(options: PaddleOcrVlConfig, of_run: PaddleOcrVlConfig) -> None:
    """Memory of an engine in this process is measured out for the run's largest picture and longest answer."""
    extra = {str(key): value for key, value in of_run.vlm_extra_args.items()}
    most = max([of_run.max_pixels, *(value for key, value in extra.items() if key.endswith("_max_pixels"))])
    most = max(most, _SPOTTING_PIXELS if of_run.prompt_label == "spotting" else 0)
    asked = {"max_pixels": options.max_pixels} | {str(key): value for key, value in options.vlm_extra_args.items()}
    for key, value in asked.items():
        if key.endswith("max_pixels") and value > most:
            raise ConfigError(f"{key}: the engine is set up for {most} (got {value}). Try: --set paddleocr_vl.max_pixels={value}")
    if options.max_new_tokens > of_run.max_new_tokens:
        raise ConfigError(
            f"max_new_tokens: the run has {of_run.max_new_tokens}, and its engine no room for {options.max_new_tokens}"
        )
    if options.prompt_label == "spotting" and most < _SPOTTING_PIXELS:
        raise ConfigError(
            "prompt_label: spotting needs larger pictures. Try: --set paddleocr_vl.prompt_label=spotting for the run"
        )
