"""The two files that a run writes: its output, by whole lines in the order of the input, and the lines that failed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from corral.batch.journal import Place
from corral.errors import ConfigurationError, CorralError

_MARKED_BYTES = 4096


class OutputError(CorralError):
    """A file that cannot be written, as on a full disk. The run can go on once that is mended."""


class GrowingFile:
    """A file that is written at its end, from a place that is known. What is behind it was written by a run that was
    killed before it could note that.
    """

    def __init__(self, path: Path, size: int, head: bytes) -> None:
        """Open it, and cut what is behind ``size``. Raises ConfigurationError where it is shorter."""
        self.path = path
        try:
            if size and (not path.exists() or path.stat().st_size < size):
                raise ConfigurationError(
                    f"{path}: is shorter than it was when the run was interrupted; put it back, or give --restart"
                )
            self._file: BinaryIO = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 - open as long as the run
            self._file.truncate(size)
            self._file.seek(size)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror or error}") from error
        self.size = size
        if not size and head:
            self.write(head)

    def write(self, data: bytes) -> None:
        """Write whole lines; they are on their way until :meth:`flush`."""
        try:
            self._file.write(data)
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from error
        self.size += len(data)

    def flush(self) -> None:
        """Have the system keep what was written, which then outlives this process."""
        try:
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from error

    def sync(self) -> None:
        """Have it on the disk."""
        self.flush()
        os.fsync(self._file.fileno())

    def mark(self) -> str:
        """What the last bytes before the end are known by. Raises OutputError where the file is not there any more."""
        self.flush()
        try:
            return mark_of(self.path, self.size)
        except OSError as error:
            raise OutputError(
                f"{self.path}: was removed while the run wrote it ({error.strerror or error}); give --restart"
            ) from error

    def close(self) -> None:
        self._file.close()


class Outputs:
    """Both files of one run."""

    def __init__(self, output: Path, failures: Path, place: Place, head: bytes, failures_head: bytes) -> None:
        """Go on from this place. Raises ConfigurationError where the output was changed meanwhile."""
        is_long_enough = output.exists() and output.stat().st_size >= place.output_bytes
        if place.lines and is_long_enough and mark_of(output, place.output_bytes) != place.mark:
            raise ConfigurationError(
                f"{output}: was changed since the run was interrupted; put it back, or give --restart"
            )
        self.lines = place.lines
        self.failed = place.failed
        self._output = GrowingFile(output, place.output_bytes, head)
        self._failures: GrowingFile | None = None
        self._failures_path = failures
        self._failures_head = failures_head
        if place.failures_bytes:
            self._failures = GrowingFile(failures, place.failures_bytes, failures_head)
        else:
            failures.unlink(missing_ok=True)

    def add(self, data: bytes, failed_source: bytes | None) -> None:
        """The next line, and the input's own where it failed."""
        self._output.write(data)
        self.lines += 1
        if failed_source is not None:
            if self._failures is None:
                self._failures = GrowingFile(self._failures_path, 0, self._failures_head)
            self._failures.write(failed_source + b"\n")
            self.failed += 1

    def place(self) -> Place:
        """How far both have come, once the system keeps that."""
        mark = self._output.mark()
        if self._failures is not None:
            self._failures.flush()
        failures_bytes = self._failures.size if self._failures is not None else 0
        return Place(self.lines, self._output.size, failures_bytes, self.failed, mark)

    def sync(self) -> None:
        """Have both on the disk."""
        self._output.sync()
        if self._failures is not None:
            self._failures.sync()

    def close(self) -> None:
        self._output.close()
        if self._failures is not None:
            self._failures.close()


def mark_of(path: Path, size: int) -> str:
    """What the bytes before this place are known by."""
    with path.open("rb") as file:
        file.seek(max(0, size - _MARKED_BYTES))
        return hashlib.blake2b(file.read(min(size, _MARKED_BYTES)), digest_size=16).hexdigest()
