"""The bench of the vision tower: every way encodes the same, and says how far it is from vLLM's own."""

from __future__ import annotations

import pytest

from jobs.benches.tower import tower

torch = pytest.importorskip("torch", reason="PyTorch is in the vLLM environment only")
pytest.importorskip("vllm", reason="vLLM is in an environment of its own: make test-vllm")
if torch.cuda.is_available():
    pytest.skip("the bench would take the card, on which vLLM picks other kernels", allow_module_level=True)


def test_each_way_is_timed_and_compared() -> None:
    figures = tower(
        None, batches=2, crops=3, attention=["TORCH_SDPA"], seconds=0.01, rounds=2, dtype="float32", kernels=True, tiny=True,
    )  # fmt: skip
    assert [row["way"] for row in figures.rows] == [
        "packed, as vLLM picks", "packed, TORCH_SDPA forced", "vLLM's own, crop by crop",
    ]  # fmt: skip
    assert all(row["patches/s"] > 0 and len(row["each"].split()) == 2 for row in figures.rows)
    assert [float(row["apart"]) < 1e-4 for row in figures.rows] == [True, True, True]
    assert float(figures.rows[2]["apart"]) == 0.0
    assert figures.circumstances["crops"] == 6
    products = [line.split() for line in figures.notes if line.startswith(("aten::addmm", "aten::mm"))]
    assert products, figures.notes
    assert all(int(line[2]) % 2 == 0 for line in products)  # two passes, equally many products in each
