"""Which samples share a packed sequence, in which order, and how many steps that makes; conversations as tokens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.recognize.pack import PatchFormat
from tests.conftest import ROOT
from training.batches import Capacity
from training.dataset import Conversations, Dataset, Size
from training.recipe import Recipe
from training.sft import Record, Turn

FIXTURE = ROOT / "tests" / "fixtures" / "paddleocr-vl-tiny"


def dataset(sizes: list[Size], **recipe: Any) -> Dataset:
    records = [Record(number, ()) for number in range(len(sizes))]
    return Dataset(records, sizes, cast(Conversations, None), Recipe(**recipe), Capacity(1000, 500, 64), 16)


def test_an_epoch_has_every_sample_once_within_the_capacity() -> None:
    sizes = [Size(100 + 37 * n % 400, 50 + 11 * n % 300, 1) for n in range(101)]
    data = dataset(sizes)
    groups = [data.group(n) for n in range(data.once())]
    assert Counter(i for group in groups for i in group) == Counter(range(101))
    for group in groups:
        assert 1 <= len(group) <= 8
        assert sum(sizes[i].patches for i in group) <= 1000
        assert sum(sizes[i].tokens for i in group) <= 500
    following = [i for n in range(data.once(), 2 * data.once() - 2) for i in data.group(n)]
    assert following != [i for group in groups for i in group][: len(following)]  # another order
    again = dataset(sizes)
    assert [again.group(n) for n in range(40)] == [data.group(n) for n in range(40)]  # the same for the same seed
    assert dataset(sizes, seed=24).group(0) != data.group(0)


def test_steps_come_from_data_batch_and_accumulation() -> None:
    """Where eight samples fit into each sequence it is ERNIEKit's own rule: (D x E) / (G x B x A)."""
    small = [Size(8, 8, 1)] * 640
    assert dataset(small).steps() == 640 * 2 // (8 * 8)
    assert dataset(small).steps(devices=4) == 5
    assert dataset(small, num_train_epochs=3, gradient_accumulation_steps=1).steps() == 240
    assert dataset(small, max_steps=7).steps() == 7
    assert dataset(small, packing=False).steps() == 160
    assert dataset([Size(600, 8, 1)] * 640).steps() == 160  # no two fit together
    assert dataset([Size(8, 8, 1)]).steps() == 1


def conversations() -> Conversations:
    return Conversations(FIXTURE, Path("."), 784, 200_704, PatchFormat.of_directory(FIXTURE))


def test_only_answers_are_learnt() -> None:
    turns = [Turn("OCR:", ("a.png",), "one"), Turn("Again:", (), "two")]
    image = "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"
    assert conversations().segments(turns) == [
        (f"<|begin_of_sentence|>User: {image}OCR:\nAssistant:\n", False),
        ("one", True),
        ("User: Again:\nAssistant:\n", False),
        ("two", True),
    ]


def test_a_conversation_in_tokens() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is in the environment of vLLM")
    made = conversations()
    record = Record(1, (Turn("OCR:", ("a", "b"), "one"), Turn("Again:", ("c",), "two")))
    example = made._assemble(record, [(1, 2, 4), (1, 4, 2), (1, 2, 2)], [])
    tokenizer = transformers.AutoTokenizer.from_pretrained(FIXTURE)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "OCR:"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "one"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Again:"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
    for count in (2, 2, 1):
        text = text.replace("<|IMAGE_PLACEHOLDER|>", "<image>" * count, 1)
    wanted = tokenizer.encode(text.replace("<image>", "<|IMAGE_PLACEHOLDER|>"), add_special_tokens=False)
    assert example.ids.tolist() == wanted
    learnt = tokenizer.decode([t for t in example.labels.tolist() if t >= 0])
    assert learnt == "one</s>two</s>"
    assert example.image_at.tolist() == [n for n, token in enumerate(wanted) if token == made.encoder.image_token]
    assert example.positions.shape == (3, len(wanted))
