"""The tower's Triton kernels without a card: interpreted against their plain form, and compiled for cards that we have not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("torch", reason="PyTorch is in the vLLM environment only")
triton = pytest.importorskip("triton", reason="Triton comes with vLLM's CUDA builds, not with its CPU build")

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
    q = rand(n, 3, heads, size); r = q.clone(); turn = torch.randn(n, size // 2)
    fused.rotate_(q, turn.cos(), turn.sin()); plain.rotate_(r, turn.cos(), turn.sin())
    same(q, r, "rotate"); assert torch.equal(q[:, 2], r[:, 2])
    x, u = rand(n, c), rand(n, c); y = x.clone()
    same(fused.add_norm_(x, u, first), plain.add_norm_(y, u, first), "add_norm"); same(x, y, "residual")
    x, second, target = rand(n, c), norm(1e-5), torch.randperm(n).int(); y = x.clone()
    same(fused.finish(x, u, first, second, target), plain.finish(y, u, first, second, target), "finish")
print("all equal")
"""

COMPILED = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pipelines.recognize import tower_triton as k
b, f, i, u = "*bf16", "*fp32", "*i32", "*u8"
KERNELS = [
    (k._floats, dict(patches=u, table=b, out=b), dict(inside=588, area=196, width=640, block=1024)),
    (k._place, dict(embedded=b, positions=b, where=i, count="i32", weight=b, bias=b, out=b, eps="fp32"),
     dict(side=27, channels=1152, block=2048)),
    (k._rotate, dict(qkv=b, cos=f, sin=f, pairs="i32"), dict(heads=16, half=36, block=1024)),
    (k._add_norm, dict(residual=b, update=b, weight=b, bias=b, out=b, eps="fp32"), dict(channels=1152, block=2048)),
    (k._finish, dict(residual=b, update=b, weight=b, bias=b, eps="fp32", weight2=b, bias2=b, eps2="fp32", target=i, out=b),
     dict(channels=1152, block=2048)),
]
for kernel, signature, constants in KERNELS:
    signature = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    made = triton.compile(ASTSource(kernel, signature, {(kernel.arg_names.index(n),): v for n, v in constants.items()}),
                          target=GPUTarget("cuda", int(sys.argv[1]), 32))
    assert len(made.asm["cubin"]) > 1000, kernel
    assert f".target sm_{sys.argv[1]}" in made.asm["ptx"]
print("compiled", len(KERNELS))
"""


def run(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, env=os.environ | environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_interpreted_they_equal_their_plain_form() -> None:
    assert "all equal" in run(INTERPRETED, TRITON_INTERPRET="1")


@pytest.mark.parametrize("card", ["80", "89", "90", "100", "120"])
def test_they_compile_for_cards_that_are_not_here(card: str) -> None:
    """Ampere, Ada (L40S, RTX 40), Hopper, Blackwell (B200) and its consumer cards (RTX 50)."""
    assert "compiled 5" in run(COMPILED, card)
