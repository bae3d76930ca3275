"""The catalogue: the small models inside the package, and published models by their address.

An entry holds what the makers of a model state, and where. What is not stated, or could not be
looked up, is said to be so.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from face2vec.errors import UnknownModelError
from face2vec.models.description import FIVE_POINTS, INSIGHTFACE, ModelDescription

DEFAULT_MODEL = "mini2"

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


_FACENET_WEIGHTS = {512: 23_497_424, 128: 22_808_144}  # numbers of the network, by dimension
_ABOUT_MB = {"adaface-ir18": 92, "edgeface-xs": 7, "edgeface-base": 70}  # as uniface states them


def _facenet(key: str, sha256: str, lfw: str, **facts: Any) -> ModelDescription:
    return ModelDescription(
        key=key,
        sha256=sha256,
        url=f"{_RELEASE}/{key}-weights.h5",
        lfw=f"{lfw}, {_LFW_SOURCE}",
        **_COMMON,
        **facts,
    )


def _included(key: str, sets: str, lfw: str, **facts: Any) -> ModelDescription:
    """A model of this project, inside the package, whose card is in the documentation."""
    card = f"docs/models/{key}.md"
    return ModelDescription(
        key=key,
        alignment="landmarks",
        template=FIVE_POINTS,
        trained_on=f"{sets} and others, see {card}",
        lfw=f"{lfw}, measured by this project, {card}",
        **facts,
    )


_MINI = _included(
    "mini",
    "UTKFace, CelebA crops, GENKI-4K",
    "0.9927",
    dimension=256,
    input_size=96,
    sha256="25fdfacd0e941f84181a20c4e27c67a64a452aca1591ab2628924ffba320f7ae",
    size_bytes=3_235_746,
    licence="MIT",
    commercial_use=(
        "Most of the data sets it was trained on (UTKFace, CelebA crops, GENKI-4K) were released "
        "for non-commercial research; ask a lawyer before using it commercially."
    ),
)

_MINI2 = _included(
    "mini2",
    "UTKFace, FairFace, All-Age-Faces",
    "0.9927",
    dimension=512,
    input_size=112,
    sha256="f0b247f11a2323097a6c580709ee9717c47a53e75d1b0faaaf11f3cde5e369b6",
    size_bytes=5_068_514,
    licence="CC BY-NC-SA 4.0",
    commercial_use=(
        "Its teacher EdgeFace-XS is under CC BY-NC-SA 4.0 by Idiap's model cards, which excludes "
        "commercial use, and learned from WebFace260M, which was released for non-commercial "
        "research, as were most of the data sets of mini2. Take mini if you cannot accept that."
    ),
)

_MODELS = (
    _MINI2,
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

_YAKHYO = "https://github.com/yakhyo"
_ARCFACE = (
    "InsightFace provides its trained models for non-commercial research only, and the training "
    "set WebFace600K was released for non-commercial research."
)
_ADAFACE = (
    "The repositories of AdaFace and of the ONNX files are under the MIT licence; for the weights "
    "nothing is stated, and AdaFace's author refers commercial users to Michigan State University "
    "(mk-minchul/AdaFace, issue 174). The training set was released for non-commercial research."
)
_EDGEFACE = (
    "The repository otroshi/edgeface is under BSD-3-Clause; Idiap's model cards say CC BY-NC-SA "
    "4.0, which excludes commercial use. The training set WebFace260M was released for "
    "non-commercial research."
)
_SFACE = (
    "OpenCV Zoo states Apache-2.0 for the weights, and does not name the training set; ask a "
    "lawyer before using them commercially."
)
_INSIGHTFACE_PACKS = "published in the README of InsightFace's Python package, pack {}"
_EDGEFACE_SUBSETS = "WebFace260M (12M and 4M subsets)"


def _onnx(key: str, url: str, sha256: str, **facts: Any) -> ModelDescription:
    """An ONNX file for crops of 112×112 pixels by InsightFace's template.

    Sources of what goes in: model_zoo/arcface_onnx.py of InsightFace's Python package
    (ArcFace), the READMEs of mk-minchul/AdaFace (BGR) and otroshi/edgeface, and
    FaceRecognizerSF in OpenCV's face_recognize.cpp (SFace).
    """
    usual: dict[str, Any] = {
        "dimension": 512,
        "input_size": 112,
        "layout": "NCHW",
        "format": "onnx",
    }
    return ModelDescription(
        key=key,
        url=url,
        sha256=sha256,
        alignment="landmarks",
        template=INSIGHTFACE,
        **usual | facts,
    )


def _arcface(key: str, file: str, sha256: str, lfw: str, pack: str, size: int) -> ModelDescription:
    return _onnx(
        key,
        f"{_YAKHYO}/uniface/releases/download/weights/{file}",
        sha256,
        size_bytes=size,
        lfw=f"{lfw}, {_INSIGHTFACE_PACKS.format(pack)}",
        trained_on="WebFace600K",
        licence="non-commercial research",
        commercial_use=_ARCFACE,
    )


def _adaface(key: str, file: str, sha256: str, lfw: str, **facts: Any) -> ModelDescription:
    return _onnx(
        key,
        f"{_YAKHYO}/adaface-onnx/releases/download/weights/{file}",
        sha256,
        channels="BGR",
        lfw=f"{lfw}, published in the README of mk-minchul/AdaFace",
        licence="not stated (code: MIT)",
        commercial_use=_ADAFACE,
        **facts,
    )


def _edgeface(key: str, file: str, sha256: str, lfw: str, **facts: Any) -> ModelDescription:
    return _onnx(
        key,
        f"{_YAKHYO}/edgeface-onnx/releases/download/weights/{file}",
        sha256,
        lfw=f"{lfw}, published in the README of otroshi/edgeface",
        trained_on=_EDGEFACE_SUBSETS,
        licence="BSD-3 and CC BY-NC-SA 4.0",
        commercial_use=_EDGEFACE,
        **facts,
    )


_ONNX_FILES = (
    _arcface(
        "arcface-mobilefacenet",
        "w600k_mbf.onnx",
        "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        "0.9970",
        "buffalo_s",
        13_616_099,
    ),
    _arcface(
        "arcface-r50",
        "w600k_r50.onnx",
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        "0.9983",
        "buffalo_l",
        174_383_860,
    ),
    _adaface(
        "adaface-ir18",
        "adaface_ir_18.onnx",
        "6b6a35772fb636cdd4fa86520c1a259d0c41472a76f70f802b351837a00d9870",
        "0.9953",
        trained_on="WebFace4M",
    ),
    _adaface(
        "adaface-ir101",
        "adaface_ir_101.onnx",
        "f2eb07d03de0af560a82e1214df799fec5e09375d43521e2868f9dc387e5a43e",
        "0.9982",
        trained_on="WebFace12M",
        size_bytes=260_704_652,
    ),
    _edgeface(
        "edgeface-xxs",
        "edgeface_xxs.onnx",
        "dc674de4cbc77fa0bf9a82d5149558ab8581d82a2cd3bb60f28fd1a5d3ff8a2f",
        "0.9957",
        size_bytes=5_133_128,
    ),
    _edgeface(
        "edgeface-xs",
        "edgeface_xs_gamma_06.onnx",
        "9206e2eb13a2761d7b5b76e13016d4b9acd3fa3535a9a09939f3adacd139a5ff",
        "0.9973",
    ),
    _edgeface(
        "edgeface-s",
        "edgeface_s_gamma_05.onnx",
        "b850767cf791bda585600b5c4c7d7432b2f998ccd862caae34ef1afa967d2e54",
        "0.9978",
        size_bytes=14_805_514,
    ),
    _edgeface(
        "edgeface-base",
        "edgeface_base.onnx",
        "b56942f072c67385f44734b9458b0ccc4a2226888a113f77e0c802ad0c77b4c3",
        "0.9983",
    ),
    _onnx(
        "sface",
        # By commit, because the file on the main branch was replaced once under the same name.
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
        "47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_recognition_sface/"
        "face_recognition_sface_2021dec.onnx",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        size_bytes=38_696_353,
        dimension=128,
        mean=0.0,
        std=1.0,
        lfw="0.9940, published in the README of OpenCV Zoo's face_recognition_sface",
        licence="Apache-2.0 (OpenCV Zoo)",
        commercial_use=_SFACE,
    ),
)

CATALOGUE: Mapping[str, ModelDescription] = MappingProxyType(
    {m.key: m for m in (*_MODELS, *_ONNX_FILES)}
)
"""All catalogue models by key."""


def size_in_words(model: ModelDescription) -> str:
    """The size of a catalogue model's file, such as ``"3.2 MB"``; ``~`` marks an estimate."""
    if model.size_bytes is not None:
        return f"{model.size_bytes / 1e6:.1f} MB"
    if model.format == "keras":
        return f"~{4 * _FACENET_WEIGHTS[model.dimension] / 1e6:.0f} MB"
    return f"~{_ABOUT_MB[model.key]} MB"


def terms_in_words(model: ModelDescription) -> str:
    """The terms of a catalogue model in one line: licence, training set, commercial use."""
    return (
        f"Terms of {model.key}: licence: {model.licence}; training set: {model.trained_on}. "
        f"{model.commercial_use}"
    )


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
