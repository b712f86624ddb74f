"""One launch for a whole function of tensors: CUDA graphs by batch size, where the host would launch 1,600 kernels one by one.

Invariant: a graph replays the kernels that the function launches by itself, on the same numbers. A capture that fails is said
once in the log, and the function runs as it is from then on: slower, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipelines.observe.log import EventLog

_WARM = 2  # passes before a capture: libraries choose their kernels, transformers fills its caches of anchors and positions

Compute = Callable[..., tuple[Tensor, ...]]
log = EventLog()


class Constants(TorchFunctionMode):
    """Within it, numbers that Python hands to the device do not make the host wait: `torch.tensor` of a list is copied there
    once and kept, a single number is filled in by a kernel. A copy from ordinary memory waits for the device, which no
    capture permits; transformers makes one for the shape of a level, the size of a mask, thresholds by class, an end token.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        self._made: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and args and _plain(args[0]) and self._here(kwargs.get("device")):
            return self._constant(args[0], {"device": self._device} | {k: v for k, v in kwargs.items() if v is not None})
        if func is Tensor.__setitem__ and isinstance(args[2], Number):
            if _view(args[1]):
                return args[0][args[1]].fill_(args[2])
            if _places(args[1]):
                args = (*args[:2], torch.full((), args[2], dtype=args[0].dtype, device=args[0].device))
        return func(*args, **kwargs)

    def _here(self, device: Any) -> bool:
        return device is None or torch.device(device).type == self._device.type

    def _constant(self, data: Any, kwargs: dict[str, Any]) -> Tensor:
        if isinstance(data, Number):
            return torch.full((), data, **kwargs)
        key = repr((data, sorted(kwargs.items(), key=lambda item: item[0])))
        if key not in self._made:
            self._made[key] = torch.tensor(data, **kwargs)
        return self._made[key].clone()  # whoever asked for it may write into it


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of: the end of a capture reports only that something failed before."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _plain(data: Any) -> bool:
    """Whether data is a number or lists of numbers, which are told apart by how they are written."""
    return isinstance(data, Number) or (isinstance(data, list | tuple) and all(map(_plain, data)))


def _view(index: Any) -> bool:
    """Whether an index takes a view: whole numbers and slices alone."""
    return all(isinstance(part, int | slice) and not isinstance(part, bool) for part in _parts(index))


def _places(index: Any) -> bool:
    """Whether an index is whole numbers in tensors; a mask of booleans takes a plain number without a copy."""
    tensors = [part for part in _parts(index) if isinstance(part, Tensor)]
    return bool(tensors) and all(part.dtype != torch.bool for part in tensors)


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


class Capture:
    """A function's kernels on given inputs, which stay where they are; so do the outputs, overwritten by each replay."""

    def __init__(self, compute: Compute, inputs: tuple[Tensor, ...], constants: Constants, pool: Any, stream: Any) -> None:
        before = torch.cuda.current_stream()
        self._graph = torch.cuda.CUDAGraph()
        try:
            stream.wait_stream(before)
            with torch.cuda.stream(stream), constants:
                for _ in range(_WARM):
                    compute(*inputs)
            before.wait_stream(stream)
            # other threads may use the device meanwhile
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"), constants:
                self._outputs = compute(*inputs)
        finally:
            torch.cuda.set_stream(before)  # PyTorch leaves its own in place where a capture fails

    def replay(self) -> tuple[Tensor, ...]:
        self._graph.replay()
        return self._outputs


class Graphs:
    """`compute` by graphs, one for each key that occurs, made when it first does. They share their memory: one replays at a
    time, and what it gave is read, in the order of the stream, before the next."""

    def __init__(self, device: torch.device, capture: Callable[..., Any] = Capture) -> None:
        self._capture, self._constants = capture, Constants(device)
        on_card = device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if on_card else None
        self._stream = torch.cuda.Stream(device) if on_card else None  # one for all: memory is only shared within a stream
        self._made: dict[Any, Any] = {}
        self.failed = False

    def run(self, key: Any, compute: Compute, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What `compute` gives for `inputs`, which for one key must be the same tensors in every call."""
        if not self.failed and key not in self._made:
            try:
                self._made[key] = self._capture(compute, inputs, self._constants, self._pool, self._stream)
            except Exception as error:  # an operation that cannot be captured, or no memory for it; eager may do with less
                self.failed = True
                self._made.clear()
                reason = " <- ".join(f"{type(each).__name__}: {each}".splitlines()[0] for each in _chain(error))
                log.warning("cuda_graph_off", instead="layout launches its kernels one by one, slower", reason=reason)
        return compute(*inputs) if self.failed else self._made[key].replay()
