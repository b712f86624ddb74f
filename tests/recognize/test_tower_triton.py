"""The tower's Triton kernels without a card: interpreted, against their plain form."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("torch", reason="PyTorch is not in this environment: make test-long runs this file where it is")
pytest.importorskip("triton", reason="Triton is not in this environment: make test-long brings it for this file")

INTERPRETED = """
import torch
from pipelines.recognize import tower_plain as plain, tower_triton as fused
from pipelines.recognize.pack import PatchFormat, byte_table
torch.manual_seed(0)
form = PatchFormat((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
for dtype, near in ((torch.float32, 1e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)):
    n, heads, size = 37, 3, 24
    c = heads * size
    def rand(*shape): return torch.randn(shape).to(dtype)
    def norm(eps): return rand(c), rand(c), eps
    def same(a, b, at):
        error = float((a.float() - b.float()).norm() / b.float().norm())
        assert error < near, (at, dtype, error)
    table = torch.from_numpy(byte_table(form)).to(dtype)
    patches = torch.randint(0, 256, (n, 3, 14, 14), dtype=torch.uint8)
    assert torch.equal(fused.floats(patches, table, 640), plain.floats(patches, table, 640))
    where = torch.stack([torch.arange(n) % 5, torch.arange(n) % 7, torch.full((n,), 5), torch.full((n,), 7)]).int()
    positions, first = rand(27 * 27, c), norm(1e-6)
    a = rand(n, c); b = a.clone()
    same(fused.place(a, positions, where, first), plain.place(b, positions, where, first), "place"); same(a, b, "placed")
    for wide in (24, 20, 18):  # pairs that are moved four at once, two, one
        q = rand(n, 3, heads, wide); r = q.clone(); turn = torch.randn(n, wide // 2)
        fused.rotate_(q, turn.cos(), turn.sin()); plain.rotate_(r, turn.cos(), turn.sin())
        same(q, r, ("rotate", wide)); assert torch.equal(q[:, 2], r[:, 2])
    x, u = rand(n, c), rand(n, c); y = x.clone()
    same(fused.add_norm_(x, u, first), plain.add_norm_(y, u, first), "add_norm"); same(x, y, "residual")
    x, second, target = rand(n, c), norm(1e-5), torch.randperm(n).int(); y = x.clone()
    same(fused.finish(x, u, first, second, target), plain.finish(y, u, first, second, target), "finish")
print("all equal")
"""


@pytest.mark.long
def test_interpreted_they_equal_their_plain_form() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all equal" in done.stdout
