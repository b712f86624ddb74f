"""File systems of a few MiB, for tests that fill them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs; needs the right to mount, as root in a container has it."""

    def __init__(self, path: Path, kib: int) -> None:
        path.mkdir()
        self.path = path
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(path)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            pytest.skip(f"a small file system cannot be mounted here ({made.stderr.strip()}): nothing to fill")

    def grow(self, mib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={mib}m", str(self.path)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
