"""PP-DocLayoutV2/V3 on its device: a batch of pages in, what `postprocess` needs of each out.

Invariant: on a GPU nothing waits between a batch's first byte and its last: one copy there from pinned memory, one graph (or
the network's kernels), copies back of rows and, where outlines are asked for, of masks as bits. Two batches are under way at
most, in two slots of pinned memory that are used in turn. What is returned is the caller's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config import LayoutConfig
from pipelines.layout.checkpoint import LayoutCheckpoint
from pipelines.layout.cuda_graph import Graphs
from pipelines.layout.postprocess import MASK_CUT
from pipelines.schema import Pixels

_SLOTS = 2  # batches under way: the GPU works on one while the CPU resizes the next and reads the one before
_RESIZERS = 4  # threads; a page takes 3.6 ms of CPU on one, and its kernels 5.8 ms of an H200

Rows = npt.NDArray[np.float32]


@dataclass(slots=True, frozen=True)
class Found:
    """Of one page: rows for `postprocess`, and the masks of those that a threshold may pass (None: nobody asked for any)."""

    rows: Rows
    masks: Masks | None


class Masks(Sequence[npt.NDArray[np.uint8]]):
    """One mask a row, (height / 4, width / 4) of 0 and 1, unpacked when it is asked for; rows that no threshold passes are 0."""

    def __init__(self, bits: npt.NDArray[np.uint8], likely: npt.NDArray[np.bool_], shape: tuple[int, int]) -> None:
        self._likely, self._shape = likely, shape
        last = np.flatnonzero(likely)[-1:]
        self._bits = bits[: int(last[0]) + 1 if len(last) else 0].copy()

    def __len__(self) -> int:
        return len(self._likely)

    @overload
    def __getitem__(self, row: int) -> npt.NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, row: slice) -> list[npt.NDArray[np.uint8]]: ...
    def __getitem__(self, row: int | slice) -> npt.NDArray[np.uint8] | list[npt.NDArray[np.uint8]]:
        if isinstance(row, slice):
            return [self[number] for number in range(len(self))[row]]
        if not self._likely[row]:
            return np.zeros(self._shape, np.uint8)
        points = self._shape[0] * self._shape[1]
        return np.unpackbits(self._bits[range(len(self))[row]], count=points).reshape(self._shape)


@dataclass(slots=True)
class _Slot:
    """Memory of the host for one batch under way; pinned where there is a GPU."""

    pixels: Tensor  # (pages, height, width, 3) uint8
    scale: Tensor  # (pages, 4) float: width, height, width, height of the page
    cut: Tensor  # (1,) float
    outputs: list[Tensor]  # of the GPU, copied
    done: Any = None  # event of the stream; None: nothing is awaited


@dataclass(slots=True, frozen=True)
class Flight:
    """A batch under way."""

    pages: int
    slot: _Slot
    outputs: list[Tensor]
    cut: float


class Network:
    """Verbs `begin` and `end`; batches end in the order in which they began, at most two are under way."""

    def __init__(self, network: Any, checkpoint: LayoutCheckpoint, config: LayoutConfig, device: torch.device) -> None:
        """
        Args:
            network: as transformers loads it from the checkpoint.
        """
        self.device = device
        self.batch_pages = config.batch_pages
        self._size = checkpoint.height, checkpoint.width
        self._dtype = getattr(torch, config.dtype)
        self.network = network.to(self.device, self._dtype).eval()
        self._mean = torch.tensor(checkpoint.mean, device=self.device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(checkpoint.std, device=self.device).view(1, 3, 1, 1) * 255
        self._weights = torch.tensor([1 << place for place in reversed(range(8))], dtype=torch.uint8, device=self.device)
        self._mask_shape = 0, 0
        self._on_gpu = device.type == "cuda"
        self._slots = [self._slot(pinned=self._on_gpu) for _ in range(_SLOTS if self._on_gpu else 1)]
        self._static = self._slot(device) if self._on_gpu else None
        self._graphs = Graphs(device) if self._on_gpu and config.cuda_graph == "auto" else None
        self._resizers = ThreadPoolExecutor(min(_RESIZERS, config.batch_pages)) if self._on_gpu else None
        self._begun = 0

    def _slot(self, device: torch.device | None = None, pinned: bool = False) -> _Slot:
        pages, options = self.batch_pages, {"device": device, "pin_memory": pinned}
        pixels = torch.empty((pages, *self._size, 3), dtype=torch.uint8, **options)
        return _Slot(pixels, torch.ones((pages, 4), **options), torch.zeros(1, **options), [])

    @property
    def graphed(self) -> bool:
        """Whether graphs are used, as far as one can know by now."""
        return self._graphs is not None and not self._graphs.failed

    @torch.inference_mode()
    def begin(self, pages: Sequence[Pixels], cut: float, outlines: bool) -> Flight:
        """
        Args:
            pages: 1 to `batch_pages`, (height, width, 3) uint8 RGB.
            cut: probability above which a point belongs to a region's mask.
            outlines: whether masks are wanted, where the model has any.
        """
        slot = self._slots[self._begun % len(self._slots)]
        self._begun += 1
        if slot.done is not None:
            slot.done.synchronize()  # of a batch that nobody ended, because another one raised
        list((self._resizers.map if self._resizers else map)(resized, pages, slot.pixels.numpy()))
        for i, page in enumerate(pages):
            slot.scale[i] = torch.tensor([page.shape[1], page.shape[0]] * 2)
        slot.cut[0] = cut
        count = len(pages)
        if self._static is None:
            outputs = list(self._compute(slot.pixels[:count], slot.scale[:count], slot.cut, outlines=outlines))
            return Flight(count, slot, outputs, cut)
        with torch.cuda.device(self.device):
            return Flight(count, slot, self._launched(slot, self._static, count, outlines), cut)

    def _launched(self, slot: _Slot, static: _Slot, count: int, outlines: bool) -> list[Tensor]:
        """Where the outputs of a batch will lie once its event has happened."""
        for there, here in ((static.pixels[:count], slot.pixels[:count]), (static.scale, slot.scale), (static.cut, slot.cut)):
            there.copy_(here, non_blocking=True)
        compute = partial(self._compute, outlines=outlines)
        size = padded(count, self.batch_pages) if self.graphed else count
        inputs = static.pixels[:size], static.scale[:size], static.cut
        found = self._graphs.run((size, outlines), compute, inputs) if self._graphs is not None else compute(*inputs)
        if len(slot.outputs) < len(found):
            shapes = [(self.batch_pages, *output.shape[1:]) for output in found]
            slot.outputs = [
                torch.empty(shape, dtype=output.dtype, pin_memory=self.device.type == "cuda")
                for shape, output in zip(shapes, found, strict=True)
            ]
        for there, here in zip(slot.outputs, found, strict=False):
            there[:count].copy_(here[:count], non_blocking=True)
        slot.done = torch.cuda.Event(blocking=True)  # the host sleeps: its cores have pages to draw
        slot.done.record()
        return slot.outputs[: len(found)]

    def end(self, flight: Flight) -> list[Found]:
        """Waits for a batch."""
        if flight.slot.done is not None:
            flight.slot.done.synchronize()
            flight.slot.done = None
        rows, *bits = (output[: flight.pages].numpy() for output in flight.outputs)
        least = min(flight.cut, MASK_CUT)
        return [
            Found(page.copy(), Masks(bits[0][i], page[:, 1] > least, self._mask_shape) if bits else None)
            for i, page in enumerate(rows)
        ]

    def _compute(self, pixels: Tensor, scale: Tensor, cut: Tensor, outlines: bool) -> tuple[Tensor, ...]:
        """All that runs on the device."""
        floats = pixels.permute(0, 3, 1, 2).float()
        found = self.network(pixel_values=((floats - self._mean) / self._std).to(self._dtype))
        rows, queries = _rows(found, scale)
        masks = getattr(found, "out_masks", None)
        if masks is None or not outlines:
            return (rows,)
        self._mask_shape = masks.shape[-2], masks.shape[-1]
        if not self._on_gpu:  # where one need not wait to know them, of the likely rows only: they are the first
            queries = queries[:, : int((rows[..., 1] > cut.clamp(max=MASK_CUT)).sum(1).max())]
        return rows, _bits(masks, queries, cut, self._weights)


def padded(pages: int, most: int) -> int:
    """How many pages the graph has that a batch goes through: the next power of two, or the largest batch. The places that are
    left over hold whatever they held; no page sees them."""
    return min(most, 1 << (pages - 1).bit_length())


def resized(pixels: Pixels, into: Pixels) -> Pixels:
    """Pixels stretched by cubic interpolation, as OpenCV does it, to the size of `into`, (height, width, 3) uint8 RGB."""
    import cv2

    cv2.resize(pixels, into.shape[1::-1], into, interpolation=cv2.INTER_CUBIC)
    return into


def _rows(found: Any, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(pages, queries, 8) float: the best (query, class) pairs with boxes in pixels, rank and votes; and their queries."""
    scores = found.logits.float().sigmoid()
    count, classes = scores.shape[1], scores.shape[2]
    best, flat = scores.flatten(1).topk(count, dim=-1)
    queries, labels = flat // classes, flat % classes
    center, extent = found.pred_boxes.float().split(2, dim=-1)
    boxes = torch.cat([center - extent / 2, center + extent / 2], -1) * scale[:, None]
    before = found.order_logits.float().sigmoid()
    votes = before.triu(1).sum(1) + (1 - before.transpose(1, 2)).tril(-1).sum(1)
    ranks = votes.argsort(1).argsort(1).float()
    picked = torch.cat([boxes, ranks[..., None], votes[..., None]], -1).gather(1, queries[..., None].expand(-1, -1, 6))
    return torch.cat([labels[..., None].float(), best[..., None], picked], -1), queries


def _bits(masks: Tensor, queries: Tensor, cut: Tensor, weights: Tensor) -> Tensor:
    """(pages, rows, bytes) uint8: whether each point of each row's mask is above the cut, eight to a byte, first one highest.
    On a GPU of all rows: to copy 1.5 MB a page is cheaper than to wait in the midst for how many rows are likely."""
    chosen = masks.gather(1, queries[..., None, None].expand(-1, -1, *masks.shape[2:]))
    above = (chosen.float().sigmoid() > cut).flatten(2)
    above = F.pad(above, (0, -above.shape[-1] % 8))
    return (above.unflatten(-1, (-1, 8)) * weights).sum(-1, dtype=torch.uint8)
