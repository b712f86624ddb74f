"""The packed forward pass against transformers' own, example by example; the tokens and positions that it is given."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is in the environment of vLLM")
transformers = pytest.importorskip("transformers", reason="transformers is in the environment of vLLM")

from pipelines.recognize.pack import pack as pack_crop
from training.batches import IGNORE, Batch, Capacity, Example, pack, taps_of
from training.encode import Encoder
from training.evaluate import score
from training.forward import OnDevice, PackedModel

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"
SIZES = [(20, 300), (100, 40), (28, 28), (150, 420), (9, 200)]  # height, width of pictures
CPU = torch.device("cpu")
SMALL = Capacity(2048, 1024, 8, 1024)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(1)
    made = transformers.PaddleOCRVLForConditionalGeneration.from_pretrained(FIXTURE, dtype=torch.float32).eval()
    made.model.visual.vision_model.embeddings.interpolation_align_corners = False  # as vLLM and the released models
    return made


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    encoder, rng, made = Encoder.of(FIXTURE), np.random.default_rng(0), []
    for height, width in SIZES:
        crop = pack_crop(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), 784, 200_704)
        made.append(encoder.example(crop.patches, crop.grid[1:], "OCR:", encoder.tokens("some words, " * (width // 60))))
    return made


def packed_batch(examples: list[Example], capacity: Capacity = SMALL) -> Batch:
    return pack(examples, capacity, 16)


@torch.no_grad()
def upstream(model: Any, example: Example) -> Any:
    """(t, vocabulary) logits as transformers computes them, alone."""
    ids = torch.from_numpy(example.ids)[None]
    pixels = (torch.from_numpy(example.patches).float() / 255 - 0.5) / 0.5
    (grid,) = example.grids
    return model(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_grid_thw=torch.tensor([[1, *grid]]),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
    ).logits[0]  # fmt: skip


def test_equals_transformers_on_each_example(model: Any, examples: list[Example]) -> None:
    batch = packed_batch(examples)
    packed = PackedModel(model, (0.5,) * 3, (0.5,) * 3, 1024)
    with torch.no_grad():
        on = OnDevice.of(batch, CPU)
        logits = packed.logits(packed.say(on, packed.see(on)[1])[-1])
    for number, example in enumerate(examples):
        ours = logits[torch.from_numpy(batch.sequence == number)]
        theirs = upstream(model, example)
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 2e-3 * theirs.abs().max()
        assert (ours.argmax(-1) == theirs.argmax(-1)).all()


def test_neighbours_do_not_matter(model: Any, examples: list[Example]) -> None:
    packed = PackedModel(model, (0.5,) * 3, (0.5,) * 3, 1024)

    def hidden(chosen: list[Example]) -> Any:
        batch = packed_batch(chosen)
        with torch.no_grad():
            on = OnDevice.of(batch, CPU)
            return packed.say(on, packed.see(on)[1])[-1][torch.from_numpy(batch.sequence == 0)]

    assert torch.allclose(hidden(examples), hidden(examples[:1]), atol=1e-4)


def test_grey_is_the_same_as_three_equal_channels(model: Any) -> None:
    encoder, grey = Encoder.of(FIXTURE), np.random.default_rng(1).integers(0, 256, (8, 1, 14, 14), dtype=np.uint8)
    packed = PackedModel(model, (0.5,) * 3, (0.5,) * 3, 1024)
    seen = []
    for patches in (grey, np.repeat(grey, 3, axis=1)):
        with torch.no_grad():
            on = OnDevice.of(packed_batch([encoder.example(patches, (2, 4), "OCR:", encoder.tokens("a"))]), CPU)
            seen.append(packed.see(on)[1][:2])
    assert torch.allclose(*seen, atol=1e-5)


def test_recomputing_and_cutting_the_loss_change_no_gradient(
    model: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = packed_batch(examples)
    at = torch.from_numpy(np.flatnonzero(batch.labels != IGNORE))
    found = []
    for recompute in (False, True):
        packed = PackedModel(model, (0.5,) * 3, (0.5,) * 3, 1024, recompute=recompute)
        if recompute:
            monkeypatch.setattr("training.forward.LOSS_LOGITS", 1 << 12)
            monkeypatch.setattr("training.forward.LEAST_ROWS", 16)
        model.zero_grad()
        on = OnDevice.of(batch, CPU)
        loss = packed.loss(packed.say(on, packed.see(on)[1])[-1][at], on.labels[at])
        loss.backward()
        found.append((loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    model.zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert len(found[0][1]) == len(list(model.parameters()))  # every weight learns
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], rtol=1e-3, atol=1e-3 * float(gradient.abs().max())), name


def test_positions_are_the_models_own(model: Any, examples: list[Example]) -> None:
    for example in examples:
        ids = torch.from_numpy(example.ids)[None]
        kind = (ids == model.config.image_token_id).int()
        grids = torch.tensor([[1, *grid] for grid in example.grids])
        theirs, _ = model.model.get_rope_index(ids, kind, image_grid_thw=grids)
        assert (theirs[:, 0].numpy() == example.positions).all()


def test_tokens_are_the_processors_own() -> None:
    processor = transformers.AutoProcessor.from_pretrained(FIXTURE)
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (60, 200, 3), dtype=np.uint8))
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Table Recognition:"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "<fcel>a b<ecel><nl>"}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    theirs = processor(text=[text], images=[picture], return_tensors="pt")
    encoder = Encoder.of(FIXTURE)
    crop = pack_crop(np.asarray(picture), 784, 200_704)
    ours = encoder.example(crop.patches, crop.grid[1:], "Table Recognition:", encoder.tokens("<fcel>a b<ecel><nl>"))
    assert theirs["input_ids"][0].tolist() == ours.ids.tolist()
    assert theirs["image_grid_thw"].tolist() == [[1, *ours.grids[0]]]
    normalised = (torch.from_numpy(ours.patches).float() / 255 - 0.5) / 0.5
    assert torch.allclose(theirs["pixel_values"].flatten(), normalised.flatten(), atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(2, 40), (16, 16), (31, 7), (54, 2)])
def test_position_embeddings_are_resampled_as_by_interpolate(rows: int, columns: int) -> None:
    table = torch.randn(1, 5, 16, 16)
    theirs = torch.nn.functional.interpolate(table, (rows, columns), mode="bilinear", align_corners=False)[0]
    at, weights = taps_of(rows, columns, 16)
    ours = (table[0].flatten(1).T[torch.from_numpy(at).long()] * torch.from_numpy(weights)[..., None]).sum(1)
    assert torch.allclose(ours.T.reshape(5, rows, columns), theirs, atol=1e-5)


def test_exact_by_teacher_forcing_is_exact_by_generating(model: Any) -> None:
    """The claim that the whole evaluation stands on."""
    from tests.training.renders import fresh

    pytest.importorskip("pymupdf_fonts", reason="the training's type faces are in the extra `synth`")
    encoder = Encoder.of(FIXTURE)
    renders = fresh("line", 24, seed=5) + fresh("paragraph", 8, seed=5)
    random.Random(0).shuffle(renders)
    made, said = [], []
    for render in renders:
        crop = pack_crop(render.pixels, 784, 200_704)
        made.append(encoder.example(crop.patches, crop.grid[1:], render.prompt, encoder.tokens(render.answer)))
        ids = torch.from_numpy(made[-1].ids[: -np.count_nonzero(made[-1].labels >= 0)])[None]
        pixels = (torch.from_numpy(crop.patches).float() / 255 - 0.5) / 0.5
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, image_grid_thw=torch.tensor([crop.grid]),
            mm_token_type_ids=(ids == model.config.image_token_id).int(), do_sample=False, max_new_tokens=len(render.answer) + 8,
        )  # fmt: skip
        said.append(encoder.tokenizer.decode(out[0, ids.shape[1] :].tolist(), skip_special_tokens=True))
    found = score(PackedModel(model, (0.5,) * 3, (0.5,) * 3, 1024), [packed_batch(made, Capacity(16384, 8192, 64, 1024))], CPU)
    assert found.exact == [text == render.answer for text, render in zip(said, renders, strict=True)]
    assert any(found.exact)
