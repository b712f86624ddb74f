"""`pagemill replay`: what a capsule's page does to the engines, alone and in a process that may end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.common import Conf, Manifest, Settings, guarded
from pipelines.config import load
from pipelines.errors import ConfigError, ExitCode


def replay(
    file: Annotated[Path, typer.Argument(help="what `pagemill capsule` wrote")],
    here: Annotated[bool, typer.Option(help="in this process: for a debugger")] = False,
    manifest: Manifest = None,
    conf: Conf = None,
    settings: Settings = None,
) -> None:
    """Read the page of a capsule alone, and say what happens; exit code 3 where it fails or ends its process."""
    if here:
        sys.exit(_read(file, manifest, conf, settings))
    options = [f"--conf={name}" for name in conf or []] + [f"--set={setting}" for setting in settings or []]
    options += [f"--manifest={manifest}"] if manifest is not None else []
    code = subprocess.run([sys.executable, "-m", "jobs.replay", str(file), "--here", *options], check=False).returncode
    if code < 0:
        print(f"state    the process that read it ended with {signal.Signals(-code).name}")
        code = ExitCode.SOME_FAILED
    sys.exit(code)


def _read(file: Path, manifest: str | None, conf: list[str] | None, settings: list[str] | None) -> ExitCode:
    from pipelines.observe.capsule import open_capsule
    from pipelines.observe.log import without_controls
    from pipelines.replay import told
    from pipelines.source.discovery import openers

    capsule = open_capsule(file)
    config = load(conf or [], settings or [], [(str(file), capsule.settings())])
    for named in capsule.brought_engines():
        if f"{named.partition('=')[0]}=" not in "".join(settings or []):
            raise ConfigError(f"the page was read by an engine of somebody's own, which a capsule may not start: --set {named}")
    last = ""
    uri = str(capsule.about.get("uri"))
    _, password = openers(manifest, config, [uri]).get(uri, (None, None))
    for line in told(capsule, config, password):
        last = without_controls(line)
        print(last, flush=True)
    return ExitCode.SOME_FAILED if last.startswith("state    failed") else ExitCode.OK


if __name__ == "__main__":
    guarded(replay)
