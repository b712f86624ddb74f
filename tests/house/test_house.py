"""The house rules that a reader relies on."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from pipelines.config import load
from pipelines.errors import ConfigError, ExitCode, by_code
from tests.conftest import ROOT

HEAVY = {
    "vllm",
    "paddle",
    "torch",
    "onnxruntime",
    "pymupdf",
    "fitz",
    "pypdfium2",
    "cv2",
    "rapidocr",
    "rapid_layout",
    "rapid_table",
}
MODULES = sorted((ROOT / "pipelines").rglob("*.py"))
# loaded by vLLM, in its own process, or by the layout engine that runs on PyTorch
ENGINE_SIDE = (
    "tower.py",
    "tower_plain.py",
    "tower_triton.py",
    "vllm_model.py",
    "vllm_attention.py",
    "vllm_scheduler.py",
    "cuda_graph.py",
    "network.py",
)


def top_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_ray_is_known_in_one_room() -> None:
    users = {str(path.relative_to(ROOT)) for path in MODULES if "ray" in top_imports(path)}
    assert all(user == "pipelines/pipeline.py" or user.startswith("pipelines/cluster/") for user in users), users


@pytest.mark.parametrize("library", sorted(HEAVY - {"cv2", "fitz", "torch", "vllm", "paddle"}))
def test_each_outside_library_is_behind_one_file(library: str) -> None:
    assert len([path for path in MODULES if library in top_imports(path)]) == 1


def test_importing_the_rooms_loads_no_engine() -> None:
    modules = [path for path in MODULES if path.name not in ENGINE_SIDE]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules]
    names = [name for name in names if not name.startswith("pipelines.cluster.")]
    script = (
        f"import importlib, sys\nfor n in {names}: importlib.import_module(n)\nprint(*(set(sys.modules) & {HEAVY | {'ray'}}))"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=True)
    assert out.stdout.strip() == ""


def test_engines_load_without_libgl() -> None:
    assert "opencv-python" not in {found.metadata["Name"] for found in metadata.distributions()}
    script = (
        "from pipelines.config import load\nfrom pipelines.layout.embedded import EmbeddedLayout\n"
        "from pipelines.recognize.ocr import LineReader\nfrom pipelines.recognize.tables import TableReader\n"
        "c = load(); EmbeddedLayout(c.layout, 1)._model; r = LineReader(1); r._detector, r._boxes_of; TableReader(1)._model\n"
        "print('libGL' in open('/proc/self/maps').read())"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=True)
    assert out.stdout.strip().endswith("False")


def test_every_code_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    assert not [code for code in by_code() if f"| `{code}` |" not in text]
    assert not [code for code in ExitCode if f"| {int(code)} | `{code.name}` |" not in text]
    for code, kind in by_code().items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{code}` |"))
        assert ("| transient |" in row) == kind.transient, code


def test_the_lock_names_no_host_and_no_second_opencv() -> None:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [line.split("==")[0] for line in lines if "==" in line and not line.startswith(" ")]
    assert "opencv-python-headless" in pins
    assert "opencv-python" not in pins
    assert not [line for line in lines if "://" in line]


def test_configuration() -> None:
    base = yaml.safe_load((ROOT / "conf" / "base.yaml").read_text("utf-8"))
    config = load()
    assert config.model_dump() == config.model_validate(base).model_dump()
    for section, values in base.items():
        assert set(values) == set(getattr(config, section).model_dump())
    for file in (ROOT / "conf" / "hardware").glob("*.yaml"):
        load([file])
    with pytest.raises(ConfigError, match=r"did you mean raster\.dpi"):
        load(settings=["raster.dpy=144"])
    with pytest.raises(ConfigError, match=r"--set raster\.dpi=VALUE"):
        load(settings=["raster.dpi=3"])
    secret = load(settings=["source.passwords=[hunter2]", 'store.storage_options={"secret": "s3cr3t"}']).as_yaml()
    assert "hunter2" not in secret
    assert "s3cr3t" not in secret


def test_every_option_is_read_somewhere() -> None:
    """No knob that does nothing."""
    code = "\n".join(
        path.read_text("utf-8") for path in [*MODULES, *(ROOT / "jobs").glob("*.py")] if path.name not in ("config.py", "ocr.py")
    )
    base = yaml.safe_load((ROOT / "conf" / "base.yaml").read_text("utf-8"))
    unread = [f"{section}.{key}" for section, values in base.items() for key in values if f".{key}" not in code]
    assert not unread
