"""The bytes of a photo as a stream that does not let a decoder read without end.

Decoders skip what they do not know, some of them byte by byte in Python. A file can have a gigabyte
of that, or thousands of scans over the same pixels.
"""

from __future__ import annotations

import io
import time

from face2vec.errors import PhotoError
from face2vec.photos.formats import TOO_SLOW

SMALL_BYTES = 64
SMALL_READS = 1 << 20
"""Most reads of fewer than ``SMALL_BYTES`` of one photo. They take one to three seconds. A PNG file
of ``MAX_BYTES`` in chunks of 4 kB needs fewer."""
BMP_READS = 1 << 24
"""The same for BMP files: their runs are read in Python, with two reads for each."""
CPU_SECONDS = 60.0
"""Most processor time of one photo. 200 million pixels of PNG take about five seconds."""
SCANS = 500
"""Most scans of a JPEG file, each of which may change all pixels; progressive files have ten."""
_READS_PER_LOOK = 256


class PhotoSource(io.BytesIO):
    """The bytes of a photo, for its decoder, in one thread.

    Args:
        data: the content of the file.
        name: name of the photo, for errors.
        small_reads: most reads of fewer than ``SMALL_BYTES``.
    """

    def __init__(self, data: bytes, name: str, small_reads: int = SMALL_READS) -> None:
        super().__init__(data)
        self._name, self._most = name, small_reads
        self._reads = self._small = 0
        self._end = time.thread_time() + CPU_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes.

        Raises:
            PhotoError: too much time, or too many small reads.
        """
        data = super().read(size)
        self._reads += 1
        if len(data) < SMALL_BYTES:
            self._small += 1
        if self._reads % _READS_PER_LOOK == 0 or len(data) >= 1 << 14:
            self._check()
        return data

    def _check(self) -> None:
        if self._small > self._most:
            raise PhotoError(self._name, TOO_SLOW, f"more than {self._most:,} tiny pieces")
        if time.thread_time() > self._end:
            raise PhotoError(self._name, TOO_SLOW, f"more than {CPU_SECONDS:.0f} s to decode it")


def refuse_many_scans(data: bytes, name: str) -> None:
    """Check the number of scans of a JPEG file, which are decoded without reading in between.

    Raises:
        PhotoError: there are more than ``SCANS``.
    """
    scans = data.count(b"\xff\xda")  # among coded pixels no other marker than a restart occurs
    if scans > SCANS:
        raise PhotoError(name, TOO_SLOW, f"{scans:,} scans, of at most {SCANS}")
