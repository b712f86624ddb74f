"""NVML as a module that tests put in its place: no machine of theirs has a card."""

from __future__ import annotations

from types import SimpleNamespace


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_FunctionNotFound(NVMLError):
    pass


class Nvml:
    """Cards that are half busy; `silent` names what they do not say, `lost` that none answers."""

    NVMLError, NVMLError_NotSupported, NVMLError_FunctionNotFound = NVMLError, NVMLError_NotSupported, NVMLError_FunctionNotFound
    NVML_CLOCK_SM = 1

    def __init__(self, cards: int = 1, silent: tuple[str, ...] = ()) -> None:
        self.cards, self.silent, self.lost = cards, silent, False
        self.asked: list[object] = []  # for which cards, in order

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        if self.lost:
            raise NVMLError("GPU is lost")
        self.asked.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:
        self.asked.append(uuid)
        return 0

    def nvmlDeviceGetIndex(self, handle: object) -> object:
        return handle

    def nvmlDeviceGetName(self, _: object) -> str:
        return "a card"

    def nvmlDeviceGetUtilizationRates(self, _: object) -> SimpleNamespace:
        if "busy" in self.silent:
            raise NVMLError_NotSupported
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetPowerUsage(self, _: object) -> int:
        if "watts" in self.silent:
            raise NVMLError_NotSupported
        return 300_000

    def nvmlDeviceGetClockInfo(self, _: object, kind: int) -> int:
        if "mhz" in self.silent:
            raise NVMLError_NotSupported
        return 1755 if kind == self.NVML_CLOCK_SM else 0

    def nvmlDeviceGetCurrentClocksEventReasons(self, _: object) -> int:
        if "capped" in self.silent:
            raise NVMLError_FunctionNotFound
        return 0x4 | 0x1

    def nvmlDeviceGetMemoryInfo(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(used=1 << 30)
