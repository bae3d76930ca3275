"""Images to faces: boxes, landmarks and confidence.

In: upright RGB images, uint8 (height, width, 3).
Out: `Face` objects without embeddings.
May import: ``errors``, ``types``, ``fingerprint``, ``runtime``.
"""

from typing import Literal

DETECTORS = ("mtcnn", "yunet")
"""The package's own detectors, the default first."""

TryTurned = Literal["never", "auto", "always"]
TURNED: tuple[TryTurned, ...] = ("never", "auto", "always")
"""When a photo is searched again at other angles, see `turned`."""
