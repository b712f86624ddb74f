"""How much of a card an engine may take: measured, divided, or refused with the value to set.

Invariant: `share` is pure. Engines of one card start one after the other (each would see the others' memory move while it
profiles its own), and each knows how many live beside it, so `auto` divides what is free evenly and gives an engine that
comes back what its predecessor had.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

import psutil

from pipelines.errors import EngineUnavailable

_Said = TypeVar("_Said")
_GIB = 1 << 30
_POWER_CAP = 0x4  # nvmlClocksEventReasonSwPowerCap
_LEAST_KV = 1 << 28  # 256 MiB: at 18 layers, 2 heads of 128, bf16: 14,000 tokens, two answers of the longest kind


@dataclass(slots=True, frozen=True)
class Card:
    """Memory of one card, bytes."""

    name: str
    free: int
    total: int


def share(card: Card, asked: Literal["auto"] | float, engines: int, others: int, reserve: int, weights: int) -> float:
    """vLLM's `gpu_memory_utilization` for the engine that starts now.

    Args:
        asked: share of the card for all its engines together, or `auto`.
        engines: that shall run on the card.
        others: of them that run already; what they hold is not free any more.
        reserve: bytes that `auto` leaves free, for layout on the card too.
        weights: bytes of the model's weights files; an engine needs at least these and some KV cache.

    Raises:
        EngineUnavailable: with the value to set.
    """
    starting = max(1, engines - others)  # with the one that starts now
    least = weights + _LEAST_KV
    free = f"{_gib(card.free)} of {_gib(card.total)} GiB are free on {card.name}"
    automatic = _floor(max(0, card.free - reserve) / starting / card.total)
    fraction = automatic if asked == "auto" else asked / engines
    if automatic * card.total < least and (asked == "auto" or fraction * card.total > card.free):
        raise EngineUnavailable(
            f"{free}; {_gib(reserve)} of them stay so (vllm.reserve_gib, layout), and an engine would get "
            f"{_gib(automatic * card.total)} GiB. "
            f"The model needs at least {_gib(least)} GiB: {_advice(engines)}"
        )
    if fraction * card.total > card.free:
        raise EngineUnavailable(
            f"{free}, and vllm.gpu_memory_utilization={asked} asks for {_gib(fraction * card.total)} GiB an engine. "
            f"End what else uses the card, or --set vllm.gpu_memory_utilization={_floor(automatic * engines):g} (or auto)"
        )
    if fraction * card.total < least:
        raise EngineUnavailable(
            f"vllm.gpu_memory_utilization={asked} gives an engine {_gib(fraction * card.total)} GiB; the model needs at least "
            f"{_gib(least)} GiB: --set vllm.gpu_memory_utilization=auto"
        )
    return fraction


def _advice(engines: int) -> str:
    fewer = "--set vllm.engines_per_gpu=1, or " if engines > 1 else ""
    return f"{fewer}end what else uses the card, or let the layout engine run on the CPU"


def _floor(value: float) -> float:
    return int(value * 1000) / 1000


def _gib(amount: float) -> str:
    return f"{amount / _GIB:.2f}"


def measure(card: str) -> Card:
    """The memory of a card now: an index (as NVML counts, which ignores CUDA_VISIBLE_DEVICES) or a UUID."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = handle_of(pynvml, card)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = pynvml.nvmlDeviceGetName(handle)
        return Card(name if isinstance(name, str) else name.decode(), int(memory.free), int(memory.total))
    finally:
        pynvml.nvmlShutdown()


def handle_of(nvml: Any, card: str) -> Any:
    """NVML's handle of a card: an index, as NVML counts, or a UUID."""
    return nvml.nvmlDeviceGetHandleByIndex(int(card)) if card.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(card)


@dataclass(slots=True, frozen=True)
class CardUse:
    """A card now."""

    name: str  # index and name
    busy: float | None  # percent of the last sample period in which a kernel ran; None: the card does not say (a slice of one)
    used: int  # bytes
    watts: float | None  # None: the card does not say (some laptops')
    mhz: float | None = None  # clock of its processors; None: the card does not say
    capped: bool | None = None  # its power limit keeps that clock down; None: the card, or its driver, does not say


def cards_in_use() -> list[CardUse]:
    """Every card of this machine; none where there is no driver, or no NVML."""
    return _asked(lambda nvml: [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())])


def card_in_use(card: str) -> CardUse | None:
    """One card, an index or a UUID; None where nothing answers for it."""
    found = _asked(lambda nvml: [handle_of(nvml, card)])
    return found[0] if found else None


def _asked(handles: Callable[[Any], list[Any]]) -> list[CardUse]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no card: nothing to tell
        return []
    try:
        return [use_of(pynvml, handle) for handle in handles(pynvml)]
    except pynvml.NVMLError:  # a card that is lost, or being reset: nothing to tell this time
        return []
    finally:
        pynvml.nvmlShutdown()


def use_of(nvml: Any, handle: Any) -> CardUse:
    """What NVML says of a card.

    Raises:
        pynvml.NVMLError: nothing (the card is lost, or being reset).
    """
    name = nvml.nvmlDeviceGetName(handle)
    return CardUse(
        f"{nvml.nvmlDeviceGetIndex(handle)} {name if isinstance(name, str) else name.decode()}",
        _said(nvml, lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        _said(nvml, lambda: float(nvml.nvmlDeviceGetPowerUsage(handle) / 1000)),
        _said(nvml, lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
        _said(nvml, lambda: bool(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle) & _POWER_CAP)),
    )


def _said(nvml: Any, ask: Callable[[], _Said]) -> _Said | None:
    try:
        return ask()
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return None


_SETTLING = 64 << 20  # growth of the free memory in a pause that says: something is still being freed


def settled_share(look: Callable[[], Card], decide: Callable[[Card], float], wait_s: float = 15.0, pause_s: float = 1.0) -> float:
    """`decide` on what is free once no more becomes free: a predecessor that died may still hold its memory.

    Raises:
        EngineUnavailable: of `decide`, when it still refuses after `wait_s`.
    """
    until = time.monotonic() + wait_s
    card = look()
    while True:
        time.sleep(pause_s)
        before, card = card, look()
        waiting = time.monotonic() < until
        if waiting and card.free > before.free + _SETTLING:
            continue
        try:
            return decide(card)
        except EngineUnavailable:
            if not waiting:
                raise


def visible_card() -> str:
    """The first card that this process may use, as CUDA_VISIBLE_DEVICES names it (an index or a UUID)."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"


class Register:
    """Processes of one kind that live on this node and have to do with one card, in a file that they share."""

    def __init__(self, card: str, kind: str, folder: Path | None = None) -> None:
        directory = folder or Path(tempfile.gettempdir())
        self._path = directory / f"pagemill-{kind}-{os.getuid()}-{card.replace('/', '_')}.json"

    @contextmanager
    def others(self) -> Iterator[int]:
        """Keeps all others out; yields how many are in it. On leaving without error, this process is one of them."""
        with open(self._path, "a+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released by the end of the process, whatever ends it
            living = _living(file)
            yield len(living)
            living.append([os.getpid(), psutil.Process().create_time()])
            file.seek(0)
            file.truncate()
            file.write(json.dumps(living))
            file.flush()

    def any(self) -> bool:
        """Whether another process is in it."""
        try:
            with open(self._path, encoding="ascii") as file:
                fcntl.flock(file, fcntl.LOCK_SH)
                return bool(_living(file))
        except FileNotFoundError:
            return False


class Starts:
    """The engines of one card on this node: their starts one at a time, and who of them lives."""

    def __init__(self, card: str, folder: Path | None = None) -> None:
        self._register = Register(card, "gpu", folder)

    def turn(self) -> AbstractContextManager[int]:
        """Waits for this engine's turn; gives how many engines run beside it. On leaving without error, it is one of them."""
        return self._register.others()


class LayoutOnCard:
    """Layout's process on one card: until it holds its memory, an engine that measures what is free has to leave it some."""

    def __init__(self, card: str, folder: Path | None = None) -> None:
        self._register = Register(card, "layout", folder)

    def holds_its_memory(self) -> None:
        """Said by the process itself, when its model is loaded and has seen pages."""
        with self._register.others():
            pass

    def left_free(self, expected: int) -> int:
        """Bytes that an engine has to leave, of those that layout takes in all."""
        return 0 if self._register.any() else expected


def _living(file: TextIO) -> list[list[Any]]:
    file.seek(0)
    return [entry for entry in json.loads(file.read() or "[]") if _lives(*entry)]


def _lives(pid: int, created: float) -> bool:
    try:
        return pid != os.getpid() and abs(psutil.Process(pid).create_time() - created) < 1.0
    except psutil.Error:
        return False
