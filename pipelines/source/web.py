"""Objects of web servers, by their http(s) links: looked at by HEAD, fetched whole by one GET. Nothing is listed.

Invariant: every request is bounded in time, every body in time and size; a redirect leads to http(s) alone and never from
https to http, and takes no password along. What a server refuses is said with its status; only the lack of an answer, 429 and
5xx are asked again, and a fetch waits a bounded time for a server that asks for it (Retry-After); a look does not, since many of
them stand in one planner's way.
"""

from __future__ import annotations

import base64
import errno
import http.client
import time
import urllib.request
from email.message import Message
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pipelines.config import WebLimits
from pipelines.errors import SourceTooLarge, SourceUnreadable, StoreUnavailable
from pipelines.retry_after import retry_after_s
from pipelines.secrets import public
from pipelines.source.remote import ObjectInfo
from pipelines.store.filesystem import Busy, Counting

_CHUNK = 1 << 18
_AGAIN = (408, 425, 429)  # and all of 5xx
_PATIENCE_S = 60.0  # of a fetch, before each further try, where the server asks for more than the usual backoff
_NO_HEAD = (400, 403, 405, 501)  # of servers, or of links that are signed for GET alone
_GONE = (404, 410)
_UNSAFE = "!#$%&'()*+,/:;=?@[]~"  # stays as it is when a link with spaces or letters beyond ASCII is quoted


def is_web(uri: str) -> bool:
    return uri[:8].lower().startswith(("http://", "https://"))


class WebSource(Counting):
    """
    Args:
        limits: of time and size. retries: of one request that got no answer.
    """

    def __init__(self, limits: WebLimits, retries: int = 3) -> None:
        super().__init__(retries)
        self._limits = limits
        self._opener = urllib.request.build_opener(_Redirects)

    def info(self, link: str) -> ObjectInfo:
        """What a server says of an object: its etag, else its time of change, and its size. One that says nothing, or is not
        there, has no identity and is found out when it is fetched."""
        uri = public(link)
        try:
            headers = self.retrying("head", uri, lambda: self._look(link))
        except (OSError, StoreUnavailable):
            return ObjectInfo(uri, None)
        length = headers.get("Content-Length", "")
        etag = headers.get("ETag") or headers.get("Last-Modified")
        return ObjectInfo(uri, int(length) if length.isdigit() else None, etag.strip('"') if etag else None)

    def fetch(self, link: str, file_name: str) -> None:
        """One object into a local file; a broken transfer begins anew.

        Raises:
            SourceUnreadable, SourceTooLarge; OSError: no room for it.
        """
        uri = public(link)
        try:
            self.retrying("get", uri, lambda: self._get(link, file_name), min(_PATIENCE_S, self._limits.deadline_s))
        except _TooLarge as error:
            raise SourceTooLarge(f"{uri}: {error}") from None
        except (FileNotFoundError, PermissionError) as error:
            raise SourceUnreadable(f"{uri}: {error}") from None
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise cause from None
            raise SourceUnreadable(str(error)) from None

    def _look(self, link: str) -> Message:
        try:
            with self._open(link, "HEAD") as answer:
                return answer.headers
        except _Refused as error:
            if error.status not in _NO_HEAD:
                raise
        with self._open(link, "GET", {"Range": "bytes=0-0"}) as answer:
            headers = answer.headers
            whole = headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status == http.client.PARTIAL_CONTENT:
                del headers["Content-Length"]
                headers["Content-Length"] = whole
            return headers

    def _get(self, link: str, file_name: str) -> None:
        until = time.monotonic() + self._limits.deadline_s
        most = int(self._limits.most_mib * (1 << 20))
        with self._open(link, "GET") as answer, open(file_name, "wb") as file:
            said = answer.headers.get("Content-Length", "")
            if said.isdigit() and int(said) > most:
                raise self._too_large(int(said))
            size = 0
            while chunk := answer.read1(_CHUNK):  # what is there: a server that drips must not hold a read
                size += len(chunk)
                if size > most:
                    raise self._too_large(size)
                if time.monotonic() > until:
                    raise TimeoutError(f"not transferred within source.web_deadline_s={self._limits.deadline_s:g} s")
                file.write(chunk)
            if said.isdigit() and size != int(said):
                raise ConnectionResetError(f"the transfer ended after {size} of {said} bytes")

    def _too_large(self, size: int) -> _TooLarge:
        return _TooLarge(f"{size} bytes or more, and source.web_max_mib is {self._limits.most_mib:g}")

    def _open(self, link: str, method: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        url, login = _without_login(link)
        request = urllib.request.Request(url, method=method)
        for name, value in {"User-Agent": "pagemill", "Accept-Encoding": "identity", **(headers or {})}.items():
            request.add_header(name, value)
        if login:
            request.add_unredirected_header("Authorization", login)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._limits.timeout_s)
            return answer
        except HTTPError as error:
            error.close()
            words = f"HTTP {error.code} {error.reason}"
            if error.code in _AGAIN or error.code >= 500:
                raise Busy(words, retry_after_s(error.headers.get("Retry-After"), time.time())) from None
            raise (_Absent if error.code in _GONE else _Refused)(words, error.code) from None
        except URLError as error:
            silent = isinstance(error.reason, TimeoutError)
            waited = f" (source.web_timeout_s={self._limits.timeout_s:g})" * silent
            raise ConnectionError(f"{error.reason}{waited}") from None
        except http.client.InvalidURL as error:
            raise _Refused(f"not a link: {error}", 0) from None


class _Refused(PermissionError):
    """An answer that another try would not change."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


class _TooLarge(PermissionError):
    """Nothing that another try would change either."""


class _Absent(FileNotFoundError):
    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if not is_web(newurl) or (req.full_url.lower().startswith("https://") and not newurl.lower().startswith("https://")):
            raise HTTPError(public(req.full_url), 400, f"a redirect to {urlsplit(newurl).scheme} is not followed", headers, fp)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if request is not None:
            request.method = req.get_method()  # a HEAD stays one
        return request


def _without_login(link: str) -> tuple[str, str]:
    """A link in ASCII without user name and password, and these as a header's value."""
    parts = urlsplit(link)
    info, at, host = parts.netloc.rpartition("@")
    login = "Basic " + base64.b64encode(unquote(info).encode()).decode("ascii") if at else ""
    host = host.encode("idna").decode("ascii") if not host.isascii() else host
    path, query = quote(parts.path, safe=_UNSAFE), quote(parts.query, safe=_UNSAFE)
    return urlunsplit((parts.scheme, host, path, query, "")), login
