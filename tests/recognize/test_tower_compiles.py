"""The tower's kernels are compiled to machine code for cards that nobody here has: Triton needs none for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not in this environment: make test-long runs this file where it is")
triton = pytest.importorskip("triton", reason="Triton is not in this environment: make test-long brings it for this file")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from pipelines.recognize import tower_triton  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CARDS = {"Ampere A100": 80, "Ada": 89, "Hopper": 90, "Blackwell B200": 100, "Blackwell RTX": 120}
CHANNELS, HEADS, PATCHES = 1152, 16, 8
_TYPES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.uint8: "u8", torch.int32: "i32",
}  # fmt: skip


class Recorded:
    """In a kernel's place: keeps what it would be launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.arguments, self.options = kernel, (), dict[str, int]()

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return self._launch

    def _launch(self, *arguments: Any, **options: int) -> None:
        self.arguments, self.options = arguments, options

    def source(self) -> Any:
        signature, constants = {}, {}
        for parameter, given in zip(self.kernel.params, self.arguments, strict=True):
            if parameter.is_constexpr:
                signature[parameter.name], constants[parameter.name] = "constexpr", given
            elif isinstance(given, torch.Tensor):
                signature[parameter.name] = "*" + _TYPES[given.dtype]
            else:
                signature[parameter.name] = "fp32" if isinstance(given, float) else "i32"
        return ASTSource(fn=self.kernel, signature=signature, constexprs=constants)


def launched(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> dict[str, Recorded]:
    """Every kernel as the tower launches it, at the released model's sizes."""
    kernels = {}
    for name in ("_floats", "_place", "_rotate", "_add_norm", "_finish"):
        kernels[name] = Recorded(getattr(tower_triton, name))
        monkeypatch.setattr(tower_triton, name, kernels[name])
    rows, weight = torch.zeros(PATCHES, CHANNELS, dtype=dtype), torch.zeros(CHANNELS, dtype=dtype)
    norm = (weight, weight, 1e-6)
    tower_triton.floats(torch.zeros(PATCHES, 3, 14, 14, dtype=torch.uint8), torch.zeros(3, 256, dtype=dtype), 640)
    tower_triton.place(rows, torch.zeros(27 * 27, CHANNELS, dtype=dtype), torch.zeros(4, PATCHES, dtype=torch.int32), norm)
    angles = torch.zeros(PATCHES, CHANNELS // HEADS // 2)
    tower_triton.rotate_(torch.zeros(PATCHES, 3, HEADS, CHANNELS // HEADS, dtype=dtype), angles, angles)
    tower_triton.add_norm_(rows, rows, norm)
    tower_triton.finish(rows, rows, norm, norm, torch.zeros(PATCHES, dtype=torch.int32))
    return kernels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("card", CARDS)
def test_every_kernel_compiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: str, dtype: Any) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    number = CARDS[card]
    for name, kernel in launched(monkeypatch, dtype).items():
        made = triton.compile(kernel.source(), target=GPUTarget("cuda", number, 32), options=kernel.options)
        assert f".target sm_{number}" in made.asm["ptx"], name
        assert made.asm["cubin"].startswith(b"\x7fELF"), name
        assert made.metadata.shared <= 48 << 10, name  # what a kernel gets on any card without asking
