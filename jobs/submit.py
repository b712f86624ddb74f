"""`pagemill submit`: a job on a Ray cluster, as if it ran here: its logs, its stop, its exit code."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from jobs.common import guarded
from pipelines.errors import ConfigError

_READING = ("ingest", "nightly", "reprocess")  # jobs that use Ray
_COMMANDS = (*_READING, "plan", "audit", "status", "compact", "gc", "report", "diff", "export", "tables", "doctor")

# every word behind the job's name is the job's own
CONTEXT = {"allow_interspersed_args": False}


def submit(
    words: Annotated[list[str], typer.Argument(help="a pagemill command (ingest SOURCE OUTPUT ...) or any other command line")],
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="the head's job server")
    ] = "http://127.0.0.1:8265",
    working_dir: Annotated[
        Path | None, typer.Option(help="folder to send along, when pagemill is not installed on the cluster; .gitignore counts")
    ] = None,
    python: Annotated[str, typer.Option(help="interpreter on the head; a bare name is looked up on its PATH")] = "python",
    wait_s: Annotated[float, typer.Option(min=0, help="how long a head may take to answer and to accept the job")] = 300,
    grace_s: Annotated[
        int, typer.Option(min=1, help="how long a stopped job may drain before it is killed; the default fits conf/base.yaml")
    ] = 1300,
    token_file: Annotated[Path | None, typer.Option(help="the cluster's token, where it asks for one")] = None,
    no_wait: Annotated[bool, typer.Option(help="print the job's id and leave")] = False,
) -> None:
    """Run a job on a Ray cluster: wait for the head, follow the logs, end with the job's own exit code."""
    if token_file is not None:
        if not token_file.is_file():
            raise ConfigError(f"--token-file {token_file}: no such file")
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}  # read by Ray when it is imported
        os.environ.pop("RAY_AUTH_TOKEN", None)
    from pipelines.cluster.submit import Head, Submission

    if working_dir is not None and not working_dir.is_dir():
        raise ConfigError(f"--working-dir {working_dir}: no such folder")
    job_id = f"pagemill-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"
    head = Head(address, wait_s, _say)
    head.submit(Submission(job_id, entrypoint(words, python), grace_s, str(working_dir) if working_dir else None))
    if no_wait:
        print(job_id)
        return
    _say(f"job {job_id} is submitted to {address}")
    sys.exit(head.follow(job_id, sys.stdout))


def entrypoint(words: list[str], python: str) -> str:
    """The shell command that the head runs; a job that reads joins the cluster that it runs on."""
    if words[0] not in _COMMANDS:
        return shlex.join(words)
    command = [python, "-m", f"jobs.{words[0].replace('-', '_')}", *words[1:]]
    if words[0] in _READING and not any("ray.address=" in word for word in words):
        command += ["--set", "ray.address=auto"]
    return shlex.join(command)


def _say(words: str) -> None:
    print(f"pagemill: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    guarded(submit, CONTEXT)
