"""Configuration: typed, validated once, before anything starts.

`conf/base.yaml` holds every key with its default and is the only place of a default; the models below give the types.
Invariant: an unknown key is an error that names the nearest known one; nothing reads an environment variable later on; what
may be secret is in no message and in nothing that is written down.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict

from pipelines.errors import ConfigError
from pipelines.secrets import is_credential, public

FINGERPRINTED: JsonDict = {"fingerprint": True}
_MAYBE_SECRET = frozenset({"passwords", "storage_options", "engine_args"})  # keys whose values no message repeats


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebLimits(NamedTuple):
    """Of one object of a web server."""

    timeout_s: float  # without any answer or byte
    deadline_s: float  # for the whole of it
    most_mib: float


class SourceConfig(_Section):
    span_pages: int = Field(ge=1, le=1024)
    passwords: list[str]
    probe_workers: int = Field(ge=1)
    fetches: int = Field(ge=1, le=256)
    probe_deadline_s: float = Field(gt=0)
    cache_dir: str | None
    cache_gib: float = Field(gt=0)
    storage_options: dict[str, Any]
    web_timeout_s: float = Field(gt=0)
    web_deadline_s: float = Field(gt=0)
    web_max_mib: float = Field(gt=0)
    web_fetches: int = Field(ge=1, le=256)

    @property
    def web(self) -> WebLimits:
        return WebLimits(self.web_timeout_s, self.web_deadline_s, self.web_max_mib)


class RasterConfig(_Section):
    engine: Literal["pymupdf", "pypdfium2"] = Field(json_schema_extra=FINGERPRINTED)
    dpi: float = Field(ge=36, le=1200, json_schema_extra=FINGERPRINTED)
    max_megapixels: float = Field(gt=0, json_schema_extra=FINGERPRINTED)
    deadline_s: float = Field(gt=0)
    memory_mib: int = Field(ge=128)
    span_deadlines: float = Field(gt=0)
    document_deadlines: float = Field(gt=0)


class LayoutConfig(_Section):
    engine: str = Field(pattern=r"^(embedded|pymupdf|transformers|paddle|none|[\w.]+:\w+)$", json_schema_extra=FINGERPRINTED)
    upright: Literal["auto", "always", "never"] = Field(json_schema_extra=FINGERPRINTED)
    min_score: float = Field(ge=0, le=1, json_schema_extra=FINGERPRINTED)
    model_dir: str | None
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(json_schema_extra=FINGERPRINTED)
    batch_pages: int = Field(ge=1, le=64)
    cuda_graph: Literal["auto", "off"]
    memory_gib: float | None = Field(gt=0)
    threads: int = Field(ge=1)
    python: str | None

    @field_validator("cuda_graph", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return "off" if value is False else value  # what YAML makes of a bare `off`


class RecognizeConfig(_Section):
    engine: str = Field(pattern=r"^(embedded|echo|vllm|openai|[\w.]+:\w+)$", json_schema_extra=FINGERPRINTED)
    text_layer: Literal["auto", "prefer", "verify", "off"] = Field(json_schema_extra=FINGERPRINTED)
    ocr: Literal["small", "tiny"] = Field(json_schema_extra=FINGERPRINTED)
    threads: int = Field(ge=1)
    deadline_s: float = Field(gt=0)
    crop_deadline_s: float = Field(gt=0)
    loop_pattern: int = Field(ge=0, json_schema_extra=FINGERPRINTED)
    loop_repeats: int = Field(ge=2, json_schema_extra=FINGERPRINTED)
    ladder: tuple[Literal["sampling", "redraw", "text_layer"], ...] = Field(json_schema_extra=FINGERPRINTED)

    @field_validator("text_layer", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        return "off" if value is False else value  # what YAML makes of a bare `off`


class VllmConfig(_Section):
    model_dir: str | None
    storage_options: dict[str, Any]
    load_format: str
    verify: bool
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(json_schema_extra=FINGERPRINTED)
    engines_per_gpu: int = Field(ge=1, le=8)
    gpu_memory_utilization: Literal["auto"] | Annotated[float, Field(gt=0, le=1)]
    reserve_gib: float = Field(ge=0)
    kv_cache_memory_bytes: int | None = Field(ge=1 << 20)
    max_model_len: int = Field(ge=256)
    max_num_seqs: int = Field(ge=1)
    max_num_batched_tokens: int = Field(ge=256)
    wave: int = Field(ge=1)
    enforce_eager: bool
    deterministic: bool = Field(json_schema_extra=FINGERPRINTED)
    confidence: bool = Field(json_schema_extra=FINGERPRINTED)
    engine_args: dict[str, Any] = Field(json_schema_extra=FINGERPRINTED)


class ServerConfig(_Section):
    url: str = Field(pattern=r"^https?://[^/\s]+(/.*)?$")
    model: str | None = Field(json_schema_extra=FINGERPRINTED)
    api_key_env: str
    concurrency: int = Field(ge=1)
    retries: int = Field(ge=0)
    timeout_s: float = Field(gt=0)
    wait_s: float = Field(ge=0)
    image: Literal["png", "jpeg"] = Field(json_schema_extra=FINGERPRINTED)
    jpeg_quality: int = Field(ge=1, le=100, json_schema_extra=FINGERPRINTED)


TaskPixels = Literal[
    "ocr_min_pixels", "ocr_max_pixels", "table_min_pixels", "table_max_pixels", "chart_min_pixels", "chart_max_pixels",
    "formula_min_pixels", "formula_max_pixels", "seal_min_pixels", "seal_max_pixels",
]  # fmt: skip
_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_Ratio = _Positive | tuple[_Positive, _Positive]
_Merge = Literal["large", "small", "union"]


class PaddleOcrVlConfig(_Section):
    """What the official PaddleOCR-VL pipeline lets one choose, under its own names."""

    pipeline_version: Literal["v1", "v1.5", "v1.6"] = Field(json_schema_extra=FINGERPRINTED)
    use_doc_orientation_classify: bool = Field(json_schema_extra=FINGERPRINTED)
    use_doc_unwarping: bool = Field(json_schema_extra=FINGERPRINTED)
    doc_unwarping_model_dir: str | None
    strict_parity: bool = Field(json_schema_extra=FINGERPRINTED)
    layout_threshold: _Share | dict[int, _Share] | None = Field(json_schema_extra=FINGERPRINTED)
    layout_nms: bool = Field(json_schema_extra=FINGERPRINTED)
    layout_unclip_ratio: _Ratio | dict[int, _Ratio] | None = Field(json_schema_extra=FINGERPRINTED)
    layout_merge_bboxes_mode: _Merge | dict[int, _Merge] | None = Field(json_schema_extra=FINGERPRINTED)
    layout_shape_mode: Literal["auto", "rect", "quad", "poly"] = Field(json_schema_extra=FINGERPRINTED)
    use_chart_recognition: bool = Field(json_schema_extra=FINGERPRINTED)
    use_seal_recognition: bool = Field(json_schema_extra=FINGERPRINTED)
    use_ocr_for_image_block: bool = Field(json_schema_extra=FINGERPRINTED)
    merge_layout_blocks: bool = Field(json_schema_extra=FINGERPRINTED)
    min_pixels: int = Field(gt=0, json_schema_extra=FINGERPRINTED)
    max_pixels: int = Field(gt=0, json_schema_extra=FINGERPRINTED)
    vlm_extra_args: dict[TaskPixels, Annotated[int, Field(gt=0)]] = Field(json_schema_extra=FINGERPRINTED)
    temperature: float = Field(ge=0, json_schema_extra=FINGERPRINTED)
    top_p: float | None = Field(gt=0, le=1, json_schema_extra=FINGERPRINTED)
    repetition_penalty: float | None = Field(gt=0, json_schema_extra=FINGERPRINTED)
    max_new_tokens: int = Field(gt=0, json_schema_extra=FINGERPRINTED)
    prompt_label: Literal["ocr", "formula", "table", "chart", "seal", "spotting"] = Field(json_schema_extra=FINGERPRINTED)
    markdown_ignore_labels: list[str]
    format_block_content: bool
    prettify_markdown: bool
    show_formula_number: bool
    merge_tables: bool
    relevel_titles: bool
    concatenate_pages: bool

    @model_validator(mode="after")
    def _least_is_not_most(self) -> PaddleOcrVlConfig:
        extra = {str(key): value for key, value in self.vlm_extra_args.items()}
        for task in ("", "ocr_", "table_", "chart_", "formula_", "seal_"):
            least = extra.get(f"{task}min_pixels", self.min_pixels)
            most = extra.get(f"{task}max_pixels", self.max_pixels)
            if least > most:
                raise ValueError(f"{task}min_pixels {least} is more than {task}max_pixels {most}")
        return self

    def whole_page(self) -> PaddleOcrVlConfig:
        """What holds when a page is one region: it is read, even if it is a chart or a seal."""
        read = {f"use_{self.prompt_label}_recognition": True} if self.prompt_label in ("chart", "seal") else {}
        return self.model_copy(update=read)


class AssembleConfig(_Section):
    furniture: bool = Field(json_schema_extra=FINGERPRINTED)


class StoreConfig(_Section):
    commit_every_s: float = Field(ge=0)
    merge_every: int = Field(ge=2)
    retries: int = Field(ge=0)
    timeout_s: float = Field(gt=0)
    storage_options: dict[str, Any]


class ClaimConfig(_Section):
    stale_after_s: float = Field(gt=0)
    beat_s: float = Field(gt=0)


class NightlyConfig(_Section):
    drain_s: float = Field(ge=0)


class CanaryConfig(_Section):
    documents: str = Field(min_length=1)
    similarity: float = Field(ge=0, le=1)
    tokens: float = Field(ge=0)
    crops: float = Field(ge=0)


class RayConfig(_Section):
    address: str | None
    workers: int | None = Field(ge=1)
    worker_cpus: float = Field(ge=0)
    block_pages: int | None = Field(ge=1, le=1024)
    engine_pages: int | None = Field(ge=1, le=65536)
    fuse: bool
    object_store_mib: int | None = Field(ge=80)
    task_retries: int = Field(ge=0)
    startup_tries: int = Field(ge=1)


class ObserveConfig(_Section):
    line_every_s: float = Field(gt=0)
    report_pages: int = Field(ge=0, le=200)
    log_level: Literal["debug", "info", "warning", "error"]
    metrics_port: int | None = Field(ge=1, le=65535)


class Config(_Section):
    source: SourceConfig
    raster: RasterConfig
    layout: LayoutConfig
    recognize: RecognizeConfig
    paddleocr_vl: PaddleOcrVlConfig
    vllm: VllmConfig
    server: ServerConfig
    assemble: AssembleConfig
    store: StoreConfig
    claim: ClaimConfig
    nightly: NightlyConfig
    canary: CanaryConfig
    ray: RayConfig
    observe: ObserveConfig

    @property
    def block_pages(self) -> int:
        """Pages of a block: what flows through Ray at once."""
        return self.ray.block_pages or self.source.span_pages

    def fingerprinted(self) -> dict[str, Any]:
        """The options that can change a result, as `{"raster.dpi": 144.0, ...}` in a fixed order."""
        return {
            f"{section}.{key}": getattr(getattr(self, section), key)
            for section, key, info in _keys()
            if info.json_schema_extra == FINGERPRINTED
        }

    def as_yaml(self) -> str:
        """The whole configuration without secrets: of passwords their number, of storage options and of whatever an engine's
        further arguments call a token or a key that they are set, of URIs what names the object."""
        shown = self.model_dump(mode="json")
        shown["source"]["passwords"] = [f"<{len(self.source.passwords)} passwords>"] if self.source.passwords else []
        for section in ("source", "store", "vllm"):
            options = shown[section]["storage_options"]
            shown[section]["storage_options"] = dict.fromkeys(options, "<set>")
        return yaml.safe_dump(_shown(shown), sort_keys=False)


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "<set>" if is_credential(str(key)) and inner else _shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return public(value) if isinstance(value, str) else value


def _keys() -> Iterator[tuple[str, str, Any]]:
    for section, info in Config.model_fields.items():
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for key, key_info in model.model_fields.items():
            yield section, key, key_info


def load(
    files: Sequence[str | Path] = (), settings: Sequence[str] = (), layers: Sequence[tuple[str, Mapping[str, Any]]] = ()
) -> Config:
    """The defaults, then each of `files` in order, then `layers` (origin and values), then each `key=value` of `settings`
    (the value is YAML).

    Raises:
        ConfigError: naming the key, the file or setting it came from, and the line to type.
    """
    merged: dict[str, Any] = _QUICK(resources.files("conf").joinpath("base.yaml").read_text(encoding="utf-8")).get_single_data()
    for file in files:
        _merge(merged, _read(file), str(file))
    for origin, values in layers:
        _merge(merged, values, origin)
    for setting in settings:
        _merge(merged, _parse_setting(setting), f"--set {setting.partition('=')[0]}")
    try:
        config = Config.model_validate(merged)
        alone = config.layout.engine == "none"  # a page is one region
        return config.model_copy(update={"paddleocr_vl": config.paddleocr_vl.whole_page()}) if alone else config
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        got = "" if key.partition(".")[2] in _MAYBE_SECRET else f" (got {first['input']!r})"
        raise ConfigError(f"{key}: {first['msg']}{got}. Try: --set {key}=VALUE") from None


def _read(file: str | Path) -> Mapping[str, Any]:
    """A file by path, or one that the package ships by name (`hardware/cpu`)."""
    path = Path(file)
    shipped = resources.files("conf").joinpath(f"{file}.yaml" if path.suffix == "" else str(file))
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else shipped.read_text(encoding="utf-8")
        loaded = _Once(text).get_single_data() or {}
    except FileNotFoundError:
        raise ConfigError(
            f"--conf {file}: no such file, and none of that name is shipped{_nearest(str(file), _shipped())}"
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--conf {file}: {_where(error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--conf {file}: {error}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"--conf {file}: expected `section: {{key: value}}`, found {type(loaded).__name__}")
    return loaded


_QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, 5 ms instead of 60 for the defaults; not in every build


class _Once(yaml.SafeLoader):
    """Safe, and refuses a key that stands twice: PyYAML would take the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"{key.value!r} stands here twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _shipped() -> list[str]:
    """Names of the files that the package has, as `--conf` takes them."""
    conf = resources.files("conf")
    folders = [folder for folder in conf.iterdir() if folder.is_dir() and folder.name in ("hardware", "engines")]
    return sorted(
        f"{folder.name}/{file.name[:-5]}" for folder in folders for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def _parse_setting(setting: str) -> Mapping[str, Any]:
    key, equals, value = setting.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and name):
        raise ConfigError(f"--set {key}: expected section.key=value, e.g. --set raster.dpi=144")
    try:
        return {section: {name: yaml.safe_load(value)}}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {_where(error)}") from None


def _where(error: yaml.YAMLError) -> str:
    """What is wrong and where; the library's own words repeat the line."""
    mark = getattr(error, "problem_mark", None)
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"not valid YAML: {getattr(error, 'problem', None) or type(error).__name__}{place}"


def _merge(into: dict[str, Any], new: Mapping[str, Any], origin: str) -> None:
    known = [f"{section}.{key}" for section, key, _ in _keys()]
    for section, values in new.items():
        if section not in into:
            raise ConfigError(f"{origin}: unknown section {section!r}{_nearest(str(section), list(into))}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{origin}: {section}: expected `{section}: {{key: value}}`, found {type(values).__name__}")
        for key, value in values.items():
            if f"{section}.{key}" not in known:
                raise ConfigError(f"{origin}: unknown key {section}.{key}{_nearest(f'{section}.{key}', known)}")
            into[section][key] = value


def _nearest(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
