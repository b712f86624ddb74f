"""A job on a Ray head: waits for the head, submits, follows the logs, and brings back the job's own exit code.

Invariant: a job is submitted once. After an answer that was lost the head is asked for the submission by its id before
anything is submitted again; logs that were printed are not printed twice after a connection broke.

What Ray's own command does not do (2.60, by experiment): a head answers some 20 s before it accepts jobs; the submitting
command exits 1 whatever the job's code was; a stop is SIGTERM and then 3 s, unless the submission says otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

import aiohttp
import ray.exceptions
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipelines.errors import ClusterLost, ConfigError, ExitCode

_WORLD = (OSError, RuntimeError)  # what Ray's client raises when a head does not answer, or refuses
_EVERY_S = 2.0  # between two tries
_GRACE_ENV = "RAY_JOB_STOP_WAIT_TIME_S"  # how long a stopped job may go on before SIGKILL; read from the job's environment


@dataclass(slots=True, frozen=True)
class Submission:
    job_id: str
    entrypoint: str  # a shell command; `python` is the one on the head's PATH
    grace_s: int  # between a stop and the kill
    working_dir: str | None = None  # sent to the cluster, without what .gitignore names; None: all is installed there
    env: dict[str, str] = field(default_factory=dict)

    def runtime_env(self) -> dict[str, object]:
        env: dict[str, object] = {"env_vars": {**self.env, _GRACE_ENV: str(self.grace_s)}}
        return env | ({"working_dir": self.working_dir} if self.working_dir else {})


class Head:
    """A Ray head's job server.

    Args:
        wait_s: how long to wait for a head that does not answer, or does not accept jobs yet.
        say: told what is waited for.
    """

    def __init__(self, address: str, wait_s: float, say: Callable[[str], None]) -> None:
        self._address, self._wait_s, self._say = address, wait_s, say
        self._client: JobSubmissionClient | None = None

    def submit(self, job: Submission) -> None:
        """
        Raises:
            ConfigError: the head wants another token, or refuses the submission for good.
            ClusterLost: no head accepted it within `wait_s`.
        """
        until, told = time.monotonic() + self._wait_s, ""
        while True:
            try:
                self._connected().submit_job(
                    entrypoint=job.entrypoint, submission_id=job.job_id, runtime_env=job.runtime_env()
                )  # fmt: skip
                return
            except ray.exceptions.AuthenticationError as error:
                raise ConfigError(_token_words(self._address, error)) from None
            except ValueError as error:
                option = f"--working-dir {job.working_dir}" if job.working_dir else f"--address {self._address}"
                raise ConfigError(f"{option}: {error}") from None
            except _WORLD as error:
                if self._is_there(job.job_id):
                    return
                words = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                if isinstance(error, RuntimeError) and not _may_pass(str(error)):
                    raise ConfigError(f"{self._address} refuses the job: {words}") from None
                if time.monotonic() > until:
                    raise ClusterLost(f"{self._address} accepted no job within {self._wait_s:g} s: {words}") from None
                if words != told:
                    self._say(f"waiting for {self._address}: {words}")
                    told = words
            time.sleep(_EVERY_S)

    def follow(self, job_id: str, out: TextIO) -> int:
        """Prints the job's logs until it ends; its exit code. SIGINT and SIGTERM stop the job, a second one leaves it.

        A job that was stopped has no code of its own at the head: `INTERRUPTED`.

        Raises:
            ClusterLost: the head went away for longer than `wait_s`; the job may go on.
        """
        return asyncio.run(_Following(self._connected(), job_id, out, self._wait_s, self._say).run())

    def _connected(self) -> JobSubmissionClient:
        if self._client is None:
            self._client = JobSubmissionClient(self._address)
            for name in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env"):
                logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)  # what is packed, that a connection closed
        return self._client

    def _is_there(self, job_id: str) -> bool:
        try:
            self._connected().get_job_info(job_id)
            return True
        except _WORLD:
            return False


class _Following:
    def __init__(
        self, client: JobSubmissionClient, job_id: str, out: TextIO, wait_s: float, say: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._client, self._job_id, self._out, self._wait_s, self._say = client, job_id, out, wait_s, say
        self._printed = 0  # characters of the job's log
        self._signals = 0
        self._left = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        following, leaving = asyncio.create_task(self._to_the_end()), asyncio.create_task(self._left.wait())
        done, _ = await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if following not in done:
            following.cancel()
            self._say(f"left job {self._job_id}, which is stopping")
            return int(ExitCode.INTERRUPTED)
        leaving.cancel()
        return self._code(following.result())

    def _stop(self) -> None:
        self._signals += 1
        if self._signals > 1:
            self._left.set()
            return
        self._say(f"stopping job {self._job_id}: it drains and commits; a second signal leaves it alone")
        task = asyncio.get_running_loop().create_task(self._ask_to_stop())
        self._tasks.add(task)

    async def _ask_to_stop(self) -> None:
        try:
            await asyncio.to_thread(self._client.stop_job, self._job_id)
        except _WORLD as error:
            self._say(f"the head could not be told: {error}")

    async def _to_the_end(self) -> JobDetails:
        """Logs, and what the head says of the job when it has ended; through lost connections."""
        lost_at: float | None = None
        while True:
            try:
                await self._print_logs()
                found = await asyncio.to_thread(self._client.get_job_info, self._job_id)
                lost_at = None
                if found.status.is_terminal():
                    await self._print_rest()
                    return found
                await asyncio.sleep(_EVERY_S / 4)
            except (*_WORLD, aiohttp.ClientError) as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self._wait_s:
                    raise ClusterLost(f"the head does not answer any more ({error}); job {self._job_id} may go on") from None
                await asyncio.sleep(_EVERY_S)

    async def _print_logs(self) -> None:
        seen = 0  # each connection begins at the log's first character
        async for chunk in self._client.tail_job_logs(self._job_id):
            new = chunk[max(0, self._printed - seen) :]
            seen += len(chunk)
            self._print(new)

    async def _print_rest(self) -> None:
        whole = await asyncio.to_thread(self._client.get_job_logs, self._job_id)
        self._print(whole[self._printed :])

    def _print(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._printed += len(text)

    def _code(self, job: JobDetails) -> int:
        if job.status == JobStatus.SUCCEEDED:
            return int(ExitCode.OK)
        if job.status == JobStatus.STOPPED:
            return int(ExitCode.INTERRUPTED)
        if job.driver_exit_code is None:  # it never ran, or its node died
            raise ClusterLost(f"job {self._job_id}: {job.message or 'ended without an exit code'}")
        code = int(job.driver_exit_code)
        return code if code >= 0 else 128 - code


def _may_pass(words: str) -> bool:
    """Whether a refusal is one of a head that is still starting: status 5xx."""
    return "status code 5" in words


def _token_words(address: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0]
    return (
        f"{address} refuses the token ({first}). Head and client need the same one: --token-file FILE, or "
        "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=..., as `ray start` had it"
    )
