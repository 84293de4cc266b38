"""Downloading a file over http(s) with pooch; a broken download is resumed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pooch
import requests
from tqdm import tqdm

from fbnetv3.version import package_version
from fbnetv3.weights.errors import DownloadError

ATTEMPTS = 3
WAIT = 1.0  # seconds before the second attempt; twice as many before the third
PATIENCE = 5.0  # seconds before a progress bar appears
_CHUNK = 1 << 16  # bytes read at once
_BUSY = (429, 500, 502, 503, 504)  # HTTP status codes after which another attempt may succeed
_BROKEN = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


class _ProgressBar(tqdm):
    """A bar of bytes on standard error, drawn once a transfer takes longer than ``PATIENCE``."""

    def __init__(self, label: str) -> None:
        super().__init__(desc=label, unit="B", unit_scale=True, leave=False, delay=PATIENCE)

    def __bool__(self) -> bool:
        return True  # pooch tests the bar before the total is known; tqdm would raise an error

    def reset(self, total: float | None = None) -> None:
        # pooch resets a finished bar, and tqdm would draw it then even after a short transfer.
        self.n = 0


class Transfer:
    """The download of a file in up to ``ATTEMPTS`` attempts.

    An attempt continues where the previous attempt ended, if the server supports this and its
    strong ``ETag`` or its ``Last-Modified`` header shows that the file is the same. Otherwise the
    attempt starts from the first byte.

    Args:
        url: Address of the file, ``http://`` or ``https://``.
        target: File to write to.
        timeout: Seconds to wait for the connection and between bytes.
    """

    def __init__(self, url: str, target: Path, timeout: float) -> None:
        self._url, self._target, self._timeout = url, target, timeout
        self._total: int | None = None  # bytes of the whole file, as the server states
        self._validator: str | None = None  # identifies the version of the partial file

    def run(self) -> None:
        """Downloads the file.

        Raises:
            DownloadError: The server cannot be reached or refuses, or the connection broke in
                every attempt. The message gives the reason in one line.
            OSError: The file cannot be written.
        """
        self._target.write_bytes(b"")
        for attempt in range(ATTEMPTS):
            try:
                with self._target.open("r+b") as out:
                    self._attempt(out)
                return
            except requests.exceptions.RequestException as error:
                if attempt == ATTEMPTS - 1 or not _is_transient(error):
                    raise DownloadError(self._reason(error)) from error
            time.sleep(WAIT * 2**attempt)

    def _attempt(self, out: BinaryIO) -> None:
        start = out.seek(0, os.SEEK_END) if self._validator else 0
        out.seek(start)
        # "identity": byte ranges of compressed content would not fit together
        agent = f"fbnetv3/{package_version()}"
        headers = {"User-Agent": agent, "Accept-Encoding": "identity"}
        if start and self._validator:
            headers |= {"Range": f"bytes={start}-", "If-Range": self._validator}

        def before_content(response: requests.Response, **_: Any) -> None:
            if response.is_redirect or not response.ok:
                return  # not the file: it stays as it is for the next response or attempt
            resumed = response.status_code == requests.codes.partial_content
            self._set_version(response, start if resumed else 0)
            if start and not resumed:
                out.seek(0)
                out.truncate()

        with _ProgressBar(self._url.rpartition("/")[2]) as bar:
            download = pooch.HTTPDownloader(
                progressbar=bar,
                chunk_size=_CHUNK,
                timeout=self._timeout,
                headers=headers,
                hooks={"response": before_content},
            )
            download(self._url, out, None)

    def _set_version(self, response: requests.Response, start: int) -> None:
        """Stores the file's size and version from a response whose content begins at ``start``."""
        length = response.headers.get("Content-Length", "").strip()
        self._total = start + int(length) if length.isdecimal() else None
        etag = response.headers.get("ETag", "")
        is_strong = etag and not etag.startswith("W/")
        self._validator = etag if is_strong else response.headers.get("Last-Modified")

    def _reason(self, error: requests.exceptions.RequestException) -> str:
        if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
            return f"the server answers {error.response.status_code} {error.response.reason}"
        causes = list(_causes(error))
        timeouts = (TimeoutError, requests.exceptions.Timeout)
        if any(isinstance(cause, timeouts) for cause in causes):
            return f"no answer within {self._timeout:g} s"
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            size, total = self._target.stat().st_size, self._total
            return f"the connection ended after {size} of {total or 'an unknown number of'} bytes"
        texts = [getattr(cause, "strerror", None) for cause in causes]
        return next((text for text in texts if text), str(error).splitlines()[0])


def _is_transient(error: requests.exceptions.RequestException) -> bool:
    """Whether another attempt may succeed: the connection broke, or the server is busy."""
    if isinstance(error, requests.exceptions.HTTPError):
        return error.response is not None and error.response.status_code in _BUSY
    return isinstance(error, _BROKEN)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and the errors that led to it, the newest first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
