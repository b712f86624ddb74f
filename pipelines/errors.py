"""Every failure that pagemill can name, with a stable code, what it means for a retry, and how a process ends.

Invariant: a failure is either the input's fault (`TerminalError`: trying again gives the same) or the world's
(`TransientError`: trying again may help); nothing decides this by reading a message. No message holds a credential of a URI
or a header, whatever library it came from. `docs/errors.md` lists every code with what to do, and a test holds that list
against this file.
"""

from __future__ import annotations

import traceback
from enum import IntEnum
from typing import ClassVar

from pipelines.secrets import scrub


class ExitCode(IntEnum):
    """How a command ends. Part of the public contract: cron and schedulers branch on it."""

    OK = 0  # everything accounted and nothing failed, or nothing to do
    BUG = 1  # an exception that nobody foresaw
    BAD_CONFIG = 2  # also what the command line parser uses for a wrong call
    SOME_FAILED = 3  # finished; some pages or documents failed or are encrypted
    SOURCE_UNREACHABLE = 4
    OUTPUT_UNWRITABLE = 5
    FENCED = 6  # another driver owns this output
    INTERRUPTED = 7  # drained and committed after SIGINT or SIGTERM; work is left
    AUDIT_FAILED = 8  # `audit`: the equation does not hold, pages are pending, or a part is damaged
    UNHEALTHY = 9  # `doctor`: something needs attention
    ENGINE_UNAVAILABLE = 10  # the recognition engine cannot start here, or its server does not answer
    UNPUBLISHED = 11  # as 0, 3 or 7, but the canaries drifted: what the run read waits for `publish`


class PagemillError(Exception):
    """Base of all named failures. `code` is stable; `transient` says whether another try may help."""

    code: ClassVar[str] = "INTERNAL"
    transient: ClassVar[bool] = False
    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, *words: object) -> None:
        super().__init__(*(scrub(str(word)) for word in words))

    def __reduce__(self) -> tuple[type[PagemillError], tuple[str, ...]]:
        return type(self), tuple(str(a) for a in self.args)


class TerminalError(PagemillError):
    """The input is at fault: done until somebody reprocesses it."""


class TransientError(PagemillError):
    """The world is at fault: later runs try again, `MAX_TRIES` times in all."""

    transient = True


MAX_TRIES = 3  # of a transient failure, over all runs


# -- configuration and the two ends of a run -------------------------------------------------------------------------


class ConfigError(TerminalError):
    code = "BAD_CONFIG"
    exit_code = ExitCode.BAD_CONFIG


class BadManifest(ConfigError):
    """A manifest has a row or a column that cannot be; the message names it. Nothing was read."""

    code = "BAD_MANIFEST"


class SourceUnreachable(TransientError):
    """The listing could not be made complete. Nothing is marked vanished."""

    code = "SOURCE_UNREACHABLE"
    exit_code = ExitCode.SOURCE_UNREACHABLE


class OutputUnwritable(TerminalError):
    code = "OUTPUT_UNWRITABLE"
    exit_code = ExitCode.OUTPUT_UNWRITABLE


class StoreUnavailable(TransientError):
    """The object store kept failing after every bounded retry."""

    code = "STORE_UNAVAILABLE"
    exit_code = ExitCode.OUTPUT_UNWRITABLE


class Fenced(TerminalError):
    """Another driver claimed this ledger lane; this one must not write any more."""

    code = "FENCED"
    exit_code = ExitCode.FENCED


class Interrupted(TransientError):
    code = "INTERRUPTED"
    exit_code = ExitCode.INTERRUPTED


class ClusterLost(TransientError):
    """Ray does not start, its head or the raylet of the driver's node is gone, or it keeps ending its graphs without any result;
    what was read is committed."""

    code = "CLUSTER_LOST"
    exit_code = ExitCode.INTERRUPTED


class EngineUnavailable(TransientError):
    """No worker can start (memory, model), or the engine's server does not answer; what was read before is committed."""

    code = "ENGINE_UNAVAILABLE"
    exit_code = ExitCode.ENGINE_UNAVAILABLE


class DamagedOutput(TerminalError):
    """A stored object does not hold what its name or the ledger says."""

    code = "DAMAGED_OUTPUT"
    exit_code = ExitCode.AUDIT_FAILED


# -- one source object ----------------------------------------------------------------------------------------------


class SourceUnreadable(TransientError):
    """The object is listed but its bytes cannot be had (permission, vanished in between, network)."""

    code = "SOURCE_UNREADABLE"


class SourceTooLarge(TerminalError):
    """An object of a web server is larger than `source.web_max_mib`."""

    code = "SOURCE_TOO_LARGE"


class SourceChanged(TerminalError):
    """The bytes no longer hash to the planned document."""

    code = "SOURCE_CHANGED"


class EmptyFile(TerminalError):
    code = "EMPTY_FILE"


class HtmlPage(TerminalError):
    """A web page, whatever its name says: typically a failed download."""

    code = "HTML_PAGE"


class UnsupportedFormat(TerminalError):
    code = "UNSUPPORTED_FORMAT"


class Encrypted(TerminalError):
    """Needs a password that the configured list does not hold. The document's state is `encrypted`."""

    code = "ENCRYPTED"


class DamagedDocument(TerminalError):
    code = "DAMAGED_DOCUMENT"


class NoPages(TerminalError):
    code = "NO_PAGES"


class PagesOutOfRange(TerminalError):
    """A manifest asks for pages of which the document has none. Other pages in its row: it is looked at again."""

    code = "PAGES_OUT_OF_RANGE"


# -- one page -------------------------------------------------------------------------------------------------------


class PageDamaged(TerminalError):
    """The rasterizer refused this page."""

    code = "PAGE_DAMAGED"


class BudgetExceeded(TerminalError):
    """The span's or the document's allowance of page deadlines is used up; these pages were not tried."""

    code = "BUDGET_EXCEEDED"


class PageTimeout(TransientError):
    code = "PAGE_TIMEOUT"


class PageMemory(TransientError):
    code = "PAGE_MEMORY"


class PageCrash(TransientError):
    """Native code ended the child process that was working on this page."""

    code = "PAGE_CRASH"


class WorkerLost(TransientError):
    """The page ended its Ray worker again when it was run alone."""

    code = "WORKER_LOST"


class UnusableCrop(TerminalError):
    """A region's picture that no model takes: no pixels, or far longer than wide."""

    code = "UNUSABLE_CROP"


class EngineFailed(TransientError):
    """A layout or recognition engine raised; message has its words."""

    code = "ENGINE_FAILED"


class EngineGone(EngineFailed):
    """An engine died under its requests: its process can answer nothing any more and must end."""

    exit_code = ExitCode.ENGINE_UNAVAILABLE


# -- one block: the page goes on -------------------------------------------------------------------------------------


class RegionUnreadable(TerminalError):
    """The box lies outside the page, or is thinner than 6 pixels."""

    code = "REGION_UNREADABLE"


class RegionBlank(TerminalError):
    """The crop has one colour; no model was asked."""

    code = "REGION_BLANK"


class AnswerEmpty(TerminalError):
    """The model said nothing."""

    code = "ANSWER_EMPTY"


class AnswerTruncated(TerminalError):
    """The model was cut off at its allowance of tokens."""

    code = "ANSWER_TRUNCATED"


class AnswerGarbled(TerminalError):
    """The answer held bytes that are no text; they were left out."""

    code = "ANSWER_GARBLED"


class TableMalformed(TerminalError):
    """No table could be made of the answer; its text is kept."""

    code = "TABLE_MALFORMED"


class CropTimeout(TransientError):
    code = "CROP_TIMEOUT"


class AnswerLoop(TerminalError):
    """The answer repeated itself without end and was cut, on every rung of the ladder."""

    code = "ANSWER_LOOP"


def _all(base: type[PagemillError]) -> dict[str, type[PagemillError]]:
    found = {base.code: base} if "code" in vars(base) else {}
    for sub in base.__subclasses__():
        found.update(_all(sub))
    return found


def by_code() -> dict[str, type[PagemillError]]:
    """Every code with its class (`INTERNAL` for an exception that nobody foresaw)."""
    return _all(PagemillError)


def is_transient(code: str) -> bool:
    """Whether a later run tries again what ended with `code`; codes of a newer version count as terminal."""
    found = by_code().get(code)
    return found is not None and found.transient


_LONGEST_TRACE = 4000  # characters: the innermost frames


def traced(error: BaseException) -> str:
    """Where an error happened, for whoever mends it: file, line and function of each frame, no values of variables."""
    return scrub("".join(traceback.format_exception(error))[-_LONGEST_TRACE:])


def as_named(error: BaseException) -> PagemillError:
    """`error` itself when it has a name, else an `INTERNAL` one that keeps its type and words."""
    if isinstance(error, PagemillError):
        return error
    return PagemillError(f"{type(error).__name__}: {error}")
