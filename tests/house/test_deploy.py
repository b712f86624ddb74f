"""What `conf/deploy` ships: manifests against schemas, and scripts, units and lines as far as a container can run them.

Kubernetes' own schemas come in the package kubernetes-validate. KubeRay's are in no package of a registry: `RAY_SPEC` below was
written from the fields that its reference documents (docs.ray.io, KubeRay 1.7), with the pods checked as Kubernetes' own.
"""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml

from jobs.cli import app
from pipelines.config import load
from tests.conftest import ROOT

DEPLOY = ROOT / "conf" / "deploy"


def spec(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
STRINGS = {"additionalProperties": {"type": "string"}}
POD = {"type": "object", "required": ["spec"]}  # a PodTemplateSpec, checked apart
CLUSTER = spec(
    ("headGroupSpec",),
    rayVersion=TEXT, enableInTreeAutoscaling=FLAG, suspend=FLAG,
    authOptions=spec(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
    headGroupSpec=spec(("template",), serviceType=TEXT, enableIngress=FLAG, rayStartParams=STRINGS, template=POD),
    workerGroupSpecs={
        "type": "array",
        "items": spec(
            ("groupName", "template"), groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, numOfHosts=WHOLE,
            rayStartParams=STRINGS, template=POD, suspend=FLAG, idleTimeoutSeconds=WHOLE,
        ),
    },
)  # fmt: skip
RAY_SPEC = spec(
    entrypoint=TEXT, runtimeEnvYAML=TEXT, jobId=TEXT, metadata=STRINGS, clusterSelector=STRINGS, rayClusterSpec=CLUSTER,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]}, submitterPodTemplate=POD,
    submitterConfig=spec(backoffLimit=WHOLE), backoffLimit=WHOLE, activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG, ttlSecondsAfterFinished=WHOLE, suspend=FLAG, managedBy=TEXT, entrypointResources=TEXT,
    entrypointNumCpus={"type": "number"}, entrypointNumGpus={"type": "number"},
)  # fmt: skip
META = {"type": "object", "required": ["name"]}
HEAD = {"apiVersion": {"const": "ray.io/v1"}, "metadata": META}
CRON_SPEC = spec(("schedule", "jobTemplate"), schedule=TEXT, timeZone=TEXT, suspend=FLAG, jobTemplate=RAY_SPEC)
SCHEMAS = {
    "RayJob": spec(("metadata", "spec"), **HEAD, kind=TEXT, spec=RAY_SPEC),
    "RayCronJob": spec(("metadata", "spec"), **HEAD, kind=TEXT, spec=CRON_SPEC),
}


def manifest(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def pods_of(found: Any) -> list[dict[str, Any]]:
    """Every pod template of a manifest."""
    if isinstance(found, list):
        return [pod for part in found for pod in pods_of(part)]
    if not isinstance(found, dict):
        return []
    own = [found["template"]] if "template" in found else []
    return own + [pod for key, part in found.items() if key != "template" for pod in pods_of(part)]


def check_command(words: list[str]) -> None:
    """That the command line means something to pagemill: the command is there, and so are its options."""
    group = typer.main.get_command(app)
    name, *arguments = words
    found = group.commands[name.replace("_", "-")]  # type: ignore[attr-defined]
    found.make_context(name, arguments)  # raises for an unknown option or a missing argument


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycronjob.yaml"])
def test_manifests_of_kuberay(name: str) -> None:
    found = manifest(name)
    jsonschema.validate(found, SCHEMAS[found["kind"]])
    job = found["spec"].get("jobTemplate", found["spec"])
    pods = pods_of(job["rayClusterSpec"])
    assert len(pods) == 2
    for pod in pods:
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "PodTemplate", "template": pod}, "1.37", strict=True)
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["python", "-m"]
    check_command([words[2].removeprefix("jobs."), *words[3:]])
    assert words[-2:] == ["--set", "ray.address=auto"]
    env = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    config = load(["hardware/h100"])
    longest = (config.raster.deadline_s + config.recognize.deadline_s) * config.source.span_pages
    assert int(env["RAY_JOB_STOP_WAIT_TIME_S"]) > longest
    assert job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["terminationGracePeriodSeconds"] > longest


def test_the_schemas_refuse_what_a_cluster_would() -> None:
    wrong = manifest("rayjob.yaml")
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 2
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(wrong, SCHEMAS["RayJob"])
    pod = manifest("cronjob.yaml")
    pod["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.37", strict=True)


def test_the_cron_job_of_kubernetes() -> None:
    found = manifest("cronjob.yaml")
    kubernetes_validate.validate(found, "1.37", strict=True)
    (container,) = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "pagemill"
    check_command(container["command"][1:])


def test_the_crontab(tmp_path: Path) -> None:
    """The line as cron would run it: /bin/sh, next to no environment, and percent signs as it means them."""
    lines = [line for line in (DEPLOY / "crontab").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    *when, command = lines[-1].split(None, 5)
    assert [part == "*" or int(part) >= 0 for part in when] == [True] * 5
    assert "%" not in command
    assert "/opt/pagemill/bin" in variables["PATH"].split(":")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "pagemill").write_text('#!/bin/sh\necho "$@"; exit 7\n')
    (bin_ / "pagemill").chmod(0o755)
    env = {"HOME": str(tmp_path), "SHELL": "/bin/sh", "LOGNAME": "x", "PATH": f"{bin_}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", command], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    check_command(shlex.split((tmp_path / "pagemill-nightly.log").read_text()))


def units() -> dict[str, configparser.ConfigParser]:
    found = {}
    for path in sorted(DEPLOY.glob("pagemill-nightly.*")):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string("\n".join(line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")))
        found[path.suffix] = parser
    return found


def test_the_systemd_units() -> None:
    service, timer = units()[".service"]["Service"], units()[".timer"]["Timer"]
    command = shlex.split(service["ExecStart"])
    assert command[0].endswith("/pagemill")
    check_command(command[1:])
    assert timer["Unit"] == "pagemill-nightly.service"
    assert service["KillMode"] == "mixed"  # SIGTERM to Ray's processes too would end what should drain
    config = load()
    assert int(service["TimeoutStopSec"]) > (config.raster.deadline_s + config.recognize.deadline_s) * config.source.span_pages


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed (Debian: systemd)")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in DEPLOY.glob("pagemill-nightly.*"):
        installed = path.read_text("utf-8").replace("/opt/pagemill/bin/pagemill", sys.executable)
        (tmp_path / path.name).write_text(installed)
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


FAKE = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $1" in
  "scontrol show") printf 'localhost\\nlocalhost\\n' ;;
  "ray start") trap 'echo "ray ended" >> "$CALLS"; exit 0' TERM; for _ in $(seq 600); do sleep 0.1; done ;;
  "ray status") exit 0 ;;
  "srun "*) while [[ $1 == --* ]]; do shift; done; exec "$@" ;;
  "pagemill ingest") trap 'echo "pagemill drains" >> "$CALLS"; sleep 0.5; exit 7' TERM
    echo started >> "$CALLS"; for _ in $(seq "${PAGEMILL_TICKS:-600}"); do sleep 0.1; done; exit 3 ;;
esac
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Slurm's and Ray's commands as scripts that write down how they were called."""
    for name in ("scontrol", "srun", "ray", "pagemill"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "node[1-2]",
    }  # fmt: skip


def test_the_slurm_script_passes_the_exit_code_on(slurm: dict[str, str], tmp_path: Path) -> None:
    command = ["bash", str(DEPLOY / "pagemill.sbatch"), "s3://in", "s3://out", "--conf", "hardware/h100"]
    done = subprocess.run(command, env=slurm | {"PAGEMILL_TICKS": "1"}, timeout=120, check=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert done.returncode == 3
    (reading,) = [call for call in calls if call.startswith("pagemill ingest")]
    check_command(shlex.split(reading)[1:])
    started = [call for call in calls if call.startswith("ray start")]
    assert len(started) == 2
    assert "--head" in started[0] + started[1]
    assert calls.count("ray ended") == 2
    assert subprocess.run(["bash", str(DEPLOY / "pagemill.sbatch"), "s3://in"], env=slurm, check=False).returncode == 2


def test_the_slurm_script_drains_on_a_signal(slurm: dict[str, str], tmp_path: Path) -> None:
    process = subprocess.Popen(["bash", str(DEPLOY / "pagemill.sbatch"), "s3://in", "s3://out"], env=slurm)
    until = time.monotonic() + 120
    while "started" not in (tmp_path / "calls").read_text().split("\n") if (tmp_path / "calls").exists() else True:
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 7
    calls = (tmp_path / "calls").read_text()
    assert "pagemill drains" in calls
    assert calls.count("ray ended") == 2
