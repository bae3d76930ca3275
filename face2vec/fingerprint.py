"""What made the embeddings of a gallery: the detector and the model, as typed values.

Two embeddings can be compared only if both fingerprints agree. A gallery stores its fingerprint
as JSON; `Fingerprint.from_json` and `Fingerprint.to_json` are the only places that know the keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from face2vec import stored

LARGEST_SIDE = 1 << 20
"""No embedding has a larger dimension, and no crop a longer side."""
MTCNN = "mtcnn"
"""Name of the detector that a fingerprint without a detector name stands for."""
YUNET = "yunet"


@dataclass(frozen=True)
class DetectorFingerprint:
    """What decides which faces are found.

    Attributes:
        name: name of the detector.
        version: version of the detector; raised whenever the same photo gives other faces.
        settings: its settings as JSON-able values.
    """

    name: str = MTCNN
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFingerprint:
    """What decides which embedding a crop gets, and where the model was found.

    Attributes:
        key: name of the model; not compared.
        origin: a key of the catalogue, or the absolute path of the model's file; not compared.
        weights: SHA-256 in hexadecimal of the model's weights.
        dimension: length of an embedding.
        input_size: side of a crop in pixels.
        alignment: ``"landmarks"`` or ``"margin"``.
        template: five (x, y) landmark positions as fractions of the side, or None.
        margin: (margin, margin_size) in pixels.
        standardization: (kind, mean, standard deviation).
        channels: ``"RGB"`` or ``"BGR"``.
        mirror: whether the embedding of the mirrored crop is averaged in.
    """

    key: str
    origin: str
    weights: str
    dimension: int
    input_size: int
    alignment: str
    template: Any
    margin: Any
    standardization: Any
    channels: str
    mirror: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, as a gallery stores them."""
        return asdict(self)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that are equal exactly where embeddings are comparable."""
        compared = {**self.to_dict(), "origin": "", "key": ""}
        return hashlib.sha256(json.dumps(compared, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def has_moved(self) -> bool:
        """Whether the model was a file that is no longer where it was."""
        path = Path(self.origin)
        return path.is_absolute() and not path.exists()

    def described_against(self, other: ModelFingerprint) -> str:
        """The key, and the values that differ from another model's.

        The key is enough if both the keys and the weights differ.
        """
        if self.key != other.key and self.weights != other.weights:
            return self.key
        theirs = other.to_dict()
        differ = [f"{k}: {v}" for k, v in self.to_dict().items() if theirs[k] != v and k != "key"]
        return f"{self.key} ({', '.join(differ)})"


@dataclass(frozen=True)
class Fingerprint:
    """What made the embeddings of a gallery.

    Attributes:
        detector: what decides which faces are found.
        model: what decides which embedding a crop gets.
    """

    detector: DetectorFingerprint
    model: ModelFingerprint

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is not the JSON of a fingerprint.
        """
        return cls.from_dict(stored.parsed(text, "the fingerprint"))

    @classmethod
    def from_dict(cls, values: object) -> Fingerprint:
        """Read what `to_dict` gave.

        Raises:
            ValueError: these are not the values of a fingerprint.
        """
        whole = stored.mapping(values, "the fingerprint")
        detector = DetectorFingerprint(
            stored.text(whole.get("detector_name", MTCNN), "the name of the detector"),
            stored.integer(stored.field(whole, "cascade", "the fingerprint"), "the detector"),
            stored.mapping(stored.field(whole, "detector", "the fingerprint"), "its settings"),
        )
        model = stored.mapping(stored.field(whole, "model", "the fingerprint"), "the model")
        for name in ("key", "origin", "weights", "alignment", "channels"):
            stored.text(stored.field(model, name, "the model"), f"{name!r} of the model")
        for name in ("dimension", "input_size"):
            value = stored.field(model, name, "the model")
            stored.integer(value, f"{name!r} of the model", 1, LARGEST_SIDE)
        try:
            return cls(detector, ModelFingerprint(**model))
        except TypeError as error:  # names that are missing or unknown
            raise stored.StoredValueError(f"not a fingerprint: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, as a gallery stores them.

        ``cascade`` is the detector's version. ``detector_name`` is left out for MTCNN, which was
        the only detector of the first galleries.
        """
        detector = self.detector
        named = {} if detector.name == MTCNN else {"detector_name": detector.name}
        return {
            "cascade": detector.version,
            "detector": dict(detector.settings),
            **named,
            "model": self.model.to_dict(),
        }

    def to_json(self) -> str:
        """JSON for `from_json`."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def with_origin(self, origin: str) -> Fingerprint:
        """The same fingerprint with another place of the model."""
        return replace(self, model=replace(self.model, origin=origin))

    def is_comparable_to(self, other: Fingerprint) -> bool:
        """Whether both make the same embeddings, wherever the model's file is."""
        return self.detector == other.detector and self.model.digest == other.model.digest
