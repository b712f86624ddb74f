"""The main job as a newcomer has it: a private cluster, the embedded engines; here on a machine without PyMuPDF, watched.

P7: no telemetry leaves the machine, no network is touched.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import pagemill
from pipelines.store.audit import audit
from tests.conftest import ROOT

SAMPLES = ("form-tables.pdf", "scan.pdf", "photo-scan.tiff", "damaged.pdf")


def of_this_machine() -> set[str]:
    """Every name and address under which this machine is reached from itself."""
    found = {address.address.partition("%")[0] for cards in psutil.net_if_addrs().values() for address in cards}
    return found | {socket.gethostname(), socket.getfqdn(), "localhost", "None", "", "0.0.0.0", "::"}


def leaves(place: str) -> bool:
    """Whether a call to this name or address leaves the machine."""
    place = place.removeprefix("::ffff:")
    if place in of_this_machine():
        return False
    try:
        address = ipaddress.ip_address(place)
    except ValueError:
        return True  # a name that is to be looked up
    return not (address.is_loopback or address.is_unspecified)


@contextlib.contextmanager
def sockets_of(process: subprocess.Popen[str]) -> Iterator[set[str]]:
    """The other ends of all Internet sockets of a process and its descendants, Ray's native ones too, three times a second."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.3):
            with contextlib.suppress(psutil.Error):
                whole = [psutil.Process(process.pid)]
                whole += whole[0].children(recursive=True)
                for one in whole:
                    with contextlib.suppress(psutil.Error):
                        seen.update(found.raddr.ip for found in one.net_connections("inet") if found.raddr)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.mark.timeout(900)
def test_without_pymupdf_and_without_a_network(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    (tmp_path / "in").mkdir()
    for name in SAMPLES:
        shutil.copy(ROOT / "samples" / "documents" / name, tmp_path / "in" / name)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "bare"), str(ROOT)]), "PAGEMILL_TEST_CALLS": str(calls),
    }  # fmt: skip
    command = [sys.executable, "-m", "jobs.ingest", str(tmp_path / "in"), str(tmp_path / "out")]
    settings = ["--set=raster.engine=pypdfium2", f"--set=source.cache_dir={tmp_path / 'cache'}", "--set=ray.workers=1"]
    process = subprocess.Popen(
        [*command, *settings], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with sockets_of(process) as seen:
        out, _ = process.communicate(timeout=800)
    assert process.returncode == 3, out  # damaged.pdf
    assert "ray" not in out.lower().replace(str(tmp_path).lower(), ""), out
    output = str(tmp_path / "out")
    assert audit(output, [str(path) for path in (tmp_path / "in").iterdir()]).ok
    states = {Path(row["uris"][0]).name: row["state"] for row in pagemill.read(output, "documents").to_pylist()}
    assert states == dict.fromkeys(SAMPLES[:3], "ok") | {"damaged.pdf": "failed"}
    blocks = pagemill.read(output, "blocks").to_pylist()
    assert {block["source"] for block in blocks} >= {"text_layer", "pixels"}
    (report,) = (tmp_path / "out").glob("runs/*/report.json")
    assert json.loads(report.read_text())["engines"]["raster"] == "pypdfium2"
    # P7
    called = {line.split(" ", 1)[1] for line in calls.read_text().splitlines()}
    assert called, "the run was not watched"
    assert not {place for place in called | seen if leaves(place)}


def test_pymupdf_is_truly_hidden_there() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "bare"), str(ROOT)])}
    script = "from importlib.util import find_spec\ntry:\n    import pymupdf\nexcept ImportError as e:\n    print(e)"
    found = subprocess.run([sys.executable, "-c", script], env=environment, text=True, capture_output=True, check=True)
    assert "hidden by the test" in found.stdout
