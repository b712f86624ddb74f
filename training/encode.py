"""Pictures and answers as one model's tokens, positions and patches.

Invariant: ids equal what the checkpoint's own tokenizer and chat template give for the same conversation, positions
equal the model's own M-RoPE index; both are held by tests against transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.recognize.checkpoint import ChatFormat, format_of
from training.batches import IGNORE, Example, Ints


@dataclass(slots=True)
class Encoder:
    """Of one checkpoint."""

    tokenizer: Any  # tokenizers.Tokenizer
    image_token: int
    end_token: int
    chat: ChatFormat
    merge: int = 2

    @classmethod
    def of(cls, folder: Path) -> Encoder:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "config.json").read_text("utf-8"))
        end = config.get("eos_token_id", config.get("text_config", {}).get("eos_token_id", 2))
        return cls(tokenizer, int(config["image_token_id"]), int(end), format_of(folder))

    def tokens(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def after(self, prompt: str) -> list[int]:
        """From the picture's last token to where the answer begins."""
        return self.tokens(self.chat.between + prompt + self.chat.after)

    def example(self, patches: npt.NDArray[np.uint8], grid: tuple[int, int], prompt: str, answer: list[int]) -> Example:
        """A picture, a question and what is to be said (`answer`, without the end token)."""
        image = grid[0] * grid[1] // self.merge**2
        before = self.tokens(self.chat.before)
        after = self.after(prompt)
        said = [*answer, self.end_token]
        ids = np.array([*before, *[self.image_token] * image, *after, *said], np.int64)
        labels = np.full(len(ids), IGNORE, np.int64)
        labels[-len(said) :] = said
        positions = mrope(len(before), [(grid[0] // self.merge, grid[1] // self.merge)], [len(after) + len(said)])
        at = np.arange(len(before), len(before) + image, dtype=np.int64)
        return Example(patches, [grid], ids, labels, positions, at)


def mrope(before: int, grids: Sequence[tuple[int, int]], texts: Sequence[int]) -> Ints:
    """(3, t) positions (time, row, column) of text, then for each picture its merged grid and the text after it."""
    parts = [np.tile(np.arange(before, dtype=np.int64), (3, 1))]
    start = before
    for (rows, columns), length in zip(grids, texts, strict=True):
        parts.append(np.indices((1, rows, columns), dtype=np.int64).reshape(3, -1) + start)
        start += max(rows, columns)
        parts.append(np.tile(np.arange(start, start + length, dtype=np.int64), (3, 1)))
        start += length
    return np.concatenate(parts, axis=1)
