"""The catalogue: the small model inside the package, and the published FaceNet models."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from face2vec.errors import UnknownModelError
from face2vec.models.description import FIVE_POINTS, ModelDescription

DEFAULT_MODEL = "mini"

_RELEASE = "https://github.com/faustomorales/keras-facenet/releases/download/v0.3.1"
_LFW_SOURCE = "published with the weights in the README of davidsandberg/facenet"
_CASIA = (
    "The training set CASIA-WebFace was released for non-commercial research only; "
    "ask a lawyer before using weights trained on it commercially."
)
_VGGFACE2 = (
    "The training set VGGFace2 is photos gathered from the web and released for research; "
    "ask a lawyer before using weights trained on it commercially."
)
_MS_CELEB = (
    "The training set MS-Celeb-1M was released for non-commercial research and withdrawn by "
    "its maker, Microsoft, in 2019; ask a lawyer before using weights trained on it commercially."
)

# All four were trained on the MTCNN box, enlarged to 182 px with a margin of 44, of which the
# middle 160 px were used. The two of 2017 were trained with per-image standardisation.
_COMMON: dict[str, Any] = {
    "input_size": 160,
    "alignment": "margin",
    "margin": 44,
    "margin_size": 182,
    "licence": "MIT (keras-facenet)",
    "format": "keras",
}


FACENET_WEIGHTS = {512: 23_497_424, 128: 22_808_144}
"""Number of weights of the FaceNet network by dimension."""


def _facenet(key: str, sha256: str, lfw: str, **facts: Any) -> ModelDescription:
    return ModelDescription(
        key=key,
        sha256=sha256,
        url=f"{_RELEASE}/{key}-weights.h5",
        lfw=f"{lfw}, {_LFW_SOURCE}",
        **_COMMON,
        **facts,
    )


_MINI = ModelDescription(
    key="mini",
    dimension=256,
    input_size=96,
    alignment="landmarks",
    template=FIVE_POINTS,
    sha256="25fdfacd0e941f84181a20c4e27c67a64a452aca1591ab2628924ffba320f7ae",
    size_bytes=3_235_746,
    licence="MIT",
    trained_on="UTKFace, CelebA crops, GENKI-4K and others, see docs/models/mini.md",
    commercial_use=(
        "Most of the data sets it was trained on (UTKFace, CelebA crops, GENKI-4K) were released "
        "for non-commercial research; ask a lawyer before using it commercially."
    ),
    lfw="0.9927, measured by this project, docs/models/mini.md",
)

_MODELS = (
    _MINI,
    _facenet(
        "20180402-114759",
        "8b71e7045497e841c00ee568f031d1a4d30908fceadf6884aef2dec4d545202b",
        "0.9965",
        dimension=512,
        trained_on="VGGFace2",
        commercial_use=_VGGFACE2,
    ),
    _facenet(
        "20180408-102900",
        "af526097bd89ff84dda94dc071ff39c4cf39922cf0a9d9dea652853cda9616be",
        "0.9905",
        dimension=512,
        trained_on="CASIA-WebFace",
        commercial_use=_CASIA,
    ),
    _facenet(
        "20170511-185253",
        "28db99aaafce0e62b2cdb1db5ac733ffa9e52a365e1a3ca0a13c5159bd4363c4",
        "0.987",
        dimension=128,
        standardization="per-image",
        trained_on="CASIA-WebFace",
        commercial_use=_CASIA,
    ),
    _facenet(
        "20170512-110547",
        "668e950140ad76f1e21e3a2bc1d3ad9c673734ea8ea1abbf4ecc44d1dbdd400b",
        "0.992",
        dimension=128,
        standardization="per-image",
        trained_on="MS-Celeb-1M",
        commercial_use=_MS_CELEB,
    ),
)

CATALOGUE: Mapping[str, ModelDescription] = MappingProxyType({m.key: m for m in _MODELS})
"""All catalogue models by key."""


def find_model(key: str) -> ModelDescription:
    """The description of a catalogue model.

    Raises:
        UnknownModelError: no model has this key; the message lists all keys.
    """
    if key in CATALOGUE:
        return CATALOGUE[key]
    close = difflib.get_close_matches(key, CATALOGUE, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UnknownModelError(
        f"unknown model {key!r}{hint}; the catalogue has: {', '.join(CATALOGUE)}; you can also "
        "give the path of an .onnx, .xml, .h5 or .json file"
    )
