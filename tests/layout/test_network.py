"""Batches of the layout network: what would be captured in a graph, how batches follow each other, what comes back.

Runs where PyTorch is (the vLLM environment). Without a GPU the way of a batch through pinned memory and a graph is walked with
plain memory and a graph that computes; graphs themselves are compared with the network on a card only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.config import load
from pipelines.layout.transformers_engine import TransformersLayout
from pipelines.schema import RasterPage
from tests.layout.tiny_doclayout import build

torch = pytest.importorskip("torch", reason="PyTorch is in the vLLM environment only")
pytest.importorskip("transformers", reason="transformers is in the vLLM environment only")

Place = tuple[Path, str]


@pytest.fixture(scope="module", params=["v2", "v3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp(request.param)
    build(request.param, folder)
    return folder, request.param


def engine(model: Place, *settings: str) -> TransformersLayout:
    chosen = ["layout.engine=transformers", f"layout.model_dir={model[0]}", "layout.device=cpu", *settings]
    config = load(settings=["paddleocr_vl.layout_shape_mode=poly", *chosen])
    return TransformersLayout(config.layout, config.paddleocr_vl)


def pages(count: int) -> list[RasterPage]:
    drawn = np.random.default_rng(3)
    sizes = [(300 + 40 * i, 500 - 30 * i) for i in range(count)]
    return [RasterPage(drawn.integers(0, 256, (*size, 3), dtype=np.uint8), 144, 100, 100) for size in sizes]


def test_nothing_in_the_network_waits_where_it_is_captured(model: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second pass, as a capture is: no copy of a Python list or number, no question that a tensor's values answer."""
    from torch.overrides import TorchFunctionMode

    from pipelines.layout.cuda_graph import Constants

    waits = ("tensor", "as_tensor", "from_numpy", "item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__")
    seen: list[str] = []

    class Watch(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "")
            if name in waits or (name == "__getitem__" and any(is_mask(part) for part in parts(args[1]))):
                seen.append(name)
            if name == "__setitem__" and isinstance(args[2], int | float):
                seen.extend(name for part in parts(args[1]) if not is_mask(part))  # seen on a card: a number is copied there
            return func(*args, **(kwargs or {}))

    def parts(index: Any) -> tuple[Any, ...]:
        return index if isinstance(index, tuple) else (index,)

    def is_mask(part: Any) -> bool:
        return isinstance(part, torch.Tensor) and part.dtype == torch.bool

    network = engine(model)._model
    inputs = torch.randint(0, 256, (2, 800, 800, 3), dtype=torch.uint8), torch.full((2, 4), 500.0), torch.tensor([0.5])
    constants = Constants(torch.device("cpu"))
    monkeypatch.setattr(network, "_on_gpu", True)
    with torch.inference_mode():
        plain = network._compute(*inputs, outlines=True)
        with Watch():
            network._compute(*inputs, outlines=True)
        assert "tensor" in seen  # the network does make some by itself, so that the watch sees what it is for
        with constants:
            network._compute(*inputs, outlines=True)
        monkeypatch.setattr("transformers.masking_utils.is_tracing", lambda *_: True)  # as it says within a capture
        seen.clear()
        with Watch(), constants:
            captured = network._compute(*inputs, outlines=True)
    assert seen == []
    assert [x.shape for x in plain] == [x.shape for x in captured]
    assert all(torch.equal(a, b) for a, b in zip(plain, captured, strict=True))


def test_a_constant_is_the_callers_own() -> None:
    from pipelines.layout.cuda_graph import Constants

    with Constants(torch.device("cpu")):
        first = torch.tensor([1.0, 2.0])
        first += 5
        again, whole, number = torch.tensor([1.0, 2.0]), torch.tensor([1, 2]), torch.tensor(3)
    assert again.tolist() == [1.0, 2.0]
    assert (whole.dtype, number.dtype, number.item()) == (torch.int64, torch.int64, 3)


class Replayed:
    """A graph whose replay computes: from the inputs of the capture, and nothing else."""

    made: list[int] = []

    def __init__(self, compute: Callable[..., Any], inputs: tuple[Any, ...], *shared: Any) -> None:
        self.replay = lambda: compute(*inputs)
        self.made.append(len(inputs[0]))


class Refused:
    tried: list[int] = []

    def __init__(self, compute: Any, inputs: tuple[Any, ...], *shared: Any) -> None:
        self.tried.append(len(inputs[0]))
        raise RuntimeError("operation not permitted when stream is capturing")


class Done:
    """An event that happens when somebody waits for it."""

    def record(self) -> None: ...
    def synchronize(self) -> None: ...


def as_on_a_gpu(made: TransformersLayout, capture: Any, patch: pytest.MonkeyPatch) -> TransformersLayout:
    from pipelines.layout.cuda_graph import Graphs

    network = made._model
    patch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    patch.setattr(torch.cuda, "Event", lambda **_: Done())
    patch.setattr(network, "_on_gpu", True)
    patch.setattr(network, "_slots", [network._slot(), network._slot()])
    patch.setattr(network, "_static", network._slot())
    patch.setattr(network, "_graphs", Graphs(torch.device("cpu"), capture))
    return made


def test_batches_through_slots_and_graphs_are_as_without(model: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven pages in fours: the last three go through the graph of four, with what was there before in the fourth place."""
    given = pages(7)
    plain = engine(model, "layout.batch_pages=4")
    wanted = [*plain.detect(given[:4]), *plain.detect(given[4:] + given[3:4])[:3]]
    Replayed.made.clear()
    made = as_on_a_gpu(engine(model, "layout.batch_pages=4"), Replayed, monkeypatch)
    assert made.detect(given) == wanted
    assert Replayed.made == [4]
    assert made.detect(given[2:4]) == plain.detect(given[2:4])
    assert Replayed.made == [4, 2]


def test_a_capture_that_fails_is_said_once_and_costs_no_page(
    model: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = pages(4)
    Refused.tried.clear()
    made = as_on_a_gpu(engine(model, "layout.batch_pages=3"), Refused, monkeypatch)
    assert made.detect(given) == engine(model, "layout.batch_pages=3").detect(given)
    assert Refused.tried == [3]
    assert not made._model.graphed
    told = [record.getMessage() for record in caplog.records if "cuda_graph_off" in record.getMessage()]
    assert len(told) == 1
    assert "not permitted when stream is capturing" in told[0]


def test_one_batch_is_under_way_while_the_last_is_read() -> None:
    told: list[str] = []

    class Network:
        batch_pages = 2
        device = torch.device("cpu")

        def begin(self, pixels: list[Any], cut: float, outlines: bool) -> str:
            told.append(f"begin {len(pixels)}")
            return "flight"

        def end(self, flight: str) -> list[Any]:
            from pipelines.layout.network import Found

            told.append("end")
            rows = np.array([[24, 0.9, 0, 0, 50, 50, 0]], np.float32)
            return [Found(rows, None)] * int(next(begun))

    begun = iter((2, 2, 2, 1))
    config = load(settings=["layout.model_dir=none"])
    made = TransformersLayout(config.layout, config.paddleocr_vl)
    vars(made)["_model"] = Network()
    vars(made)["_checkpoint"] = type("Checkpoint", (), {"labels": tuple("abcdefghijklmnopqrstuvwxyz")})
    assert len(made.detect(pages(7))) == 7
    assert told == ["begin 2", "begin 2", "end", "begin 2", "end", "begin 1", "end", "end"]


@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (1, 1)])
def test_bits_are_the_masks_in_the_order_of_rows(shape: tuple[int, int]) -> None:
    from pipelines.layout.network import Masks, _bits

    drawn = np.random.default_rng(1)
    logits = drawn.normal(size=(2, 6, *shape)).astype(np.float32)
    queries = np.stack([drawn.permutation(6)[:5] for _ in range(2)])
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    bits = _bits(torch.from_numpy(logits), torch.from_numpy(queries), torch.tensor([0.3]), weights).numpy()
    likely = np.array([True, True, False, True, False])
    for page in range(2):
        masks = Masks(bits[page], likely, shape)
        bits[page] = 0  # the slot's memory is used again
        wanted: npt.NDArray[np.bool_] = 1 / (1 + np.exp(-logits[page][queries[page]])) > 0.3
        assert len(masks) == 5
        for row in range(5):
            assert (masks[row] == (wanted[row] if likely[row] else 0)).all()


def test_a_batch_goes_through_a_graph_that_holds_it() -> None:
    from pipelines.layout.network import padded

    assert [padded(count, 4) for count in range(1, 5)] == [1, 2, 4, 4]
    assert [padded(count, 6) for count in range(1, 7)] == [1, 2, 4, 4, 6, 6]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are made on a CUDA card; there also: jobs.bench layout --check")
def test_graphs_give_what_the_network_gives(model: Place) -> None:
    from jobs.benches.layout import compared

    for row in compared(model[0], "layout.device=cuda"):
        assert row["graph"]
        assert row["score: most apart"] < 1e-4
        assert row["regions equal"]
