"""`make corpus`: reads a corpus as a run of its own and writes how good the reading is."""

from __future__ import annotations

import datetime
import json
import platform
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from jobs.common import Conf, Settings, guarded
from pipelines.config import Config, load

_LIBRARIES = ("pymupdf", "pypdfium2", "onnxruntime", "rapidocr", "rapid-layout", "rapid-table", "vllm", "paddlepaddle")


def corpus(
    folder: Annotated[Path, typer.Argument(help="folder with a manifest.tsv")],
    output: Annotated[Path, typer.Argument(help="folder for the reading and corpus.md, corpus.json")],
    only: Annotated[list[str] | None, typer.Option(help="paths of the manifest that start so; may be given again")] = None,
    engine: Annotated[str, typer.Option(help="reader: a shipped conf/engines/NAME, or a value of recognize.engine")] = "",
    model: Annotated[str, typer.Option(help="weights of --engine vllm: vllm.model_dir")] = "",
    expect: Annotated[Path | None, typer.Option(help="YAML: states that each value of the column `expect` allows")] = None,
    conf: Conf = None,
    settings: Settings = None,
    inline: Annotated[bool, typer.Option(help="without Ray, in this process")] = False,
) -> None:
    """Read a corpus (what OUTPUT has already is not read again) and hold it against its ground truth."""
    from jobs.scoring.corpus import manifest, read_output, score
    from jobs.scoring.figures import as_markdown, figures
    from pipelines.ingest import ingest
    from pipelines.observe.log import configure

    config = _config(engine, model, conf or [], settings or [])
    configure(config.observe.log_level)
    entries = manifest(folder, only or [])
    output.mkdir(parents=True, exist_ok=True)
    listing, reading = output / "documents.csv", str(output / "reading")
    listing.write_text(_csv([str((folder / entry.path).resolve()) for entry in entries]), "utf-8")
    ended = ingest(str(listing), reading, config, inline=inline)
    found = read_output(reading, folder, entries)
    result = figures([score(entry, found[entry.path], folder) for entry in entries], _allowed(expect))
    about = _about(config, ended.summary.engines) | {"exit code": int(ended.exit_code)}
    (output / "corpus.json").write_text(json.dumps({"about": about, **result}, indent=1, ensure_ascii=False), "utf-8")
    (output / "corpus.md").write_text(as_markdown(result, about), "utf-8")
    print(as_markdown(result, about))


def _config(engine: str, model: str, conf: list[str], settings: list[str]) -> Config:
    if engine and resources.files("conf").joinpath(f"engines/{engine}.yaml").is_file():
        conf = [f"engines/{engine}", *conf]
    elif engine:
        settings = [f"recognize.engine={engine}", *settings]
    return load(conf, [*([f"vllm.model_dir={model}"] if model else []), *settings])


def _csv(paths: list[str]) -> str:
    """A manifest of URIs; names hold commas, quotes and line ends."""
    return "uri\n" + "".join('"' + path.replace('"', '""') + '"\n' for path in paths)


def _allowed(expect: Path | None) -> dict[str, list[str]]:
    if expect is None:
        return {}
    found = yaml.safe_load(expect.read_text("utf-8"))
    return {**found["states"], **{path: entry["states"] for path, entry in (found.get("files") or {}).items()}}


def _about(config: Config, engines: dict[str, str]) -> dict[str, Any]:
    installed = {}
    for name in _LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "engines": ", ".join(f"{role} {name}" for role, name in engines.items()),
        "options": ", ".join(f"{key}={value}" for key, value in config.fingerprinted().items()),
        "libraries": ", ".join(f"{name} {version}" for name, version in installed.items()),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


if __name__ == "__main__":
    guarded(corpus)
