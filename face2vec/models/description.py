"""Descriptions of models: crop size, alignment, standardisation, and origin."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError, SettingsError

Alignment = Literal["landmarks", "margin"]
Standardization = Literal["fixed", "per-image"]
Channels = Literal["RGB", "BGR"]
Layout = Literal["NHWC", "NCHW"]
Precision = Literal["fp32", "fp16"]
FormatName = Literal["onnx", "openvino", "keras"]
Template = tuple[tuple[float, float], ...]
ByChannel = tuple[float, float, float]
_Test = Callable[[Any], bool]

FIVE_POINTS: Template = (
    (0.31556875, 0.46157411),
    (0.68262292, 0.46157411),
    (0.50026250, 0.64050536),
    (0.34947187, 0.82469192),
    (0.65343645, 0.82469192),
)
"""Default template: left eye, right eye, nose, left and right mouth corner, as
(x, y) fractions of the crop's side."""

_INSIGHTFACE_PIXELS = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
INSIGHTFACE: Template = tuple((x / 112, y / 112) for x, y in _INSIGHTFACE_PIXELS)
"""The five points of InsightFace for crops of 112×112 pixels, which ArcFace, AdaFace, EdgeFace and
SFace use, as (x, y) fractions of the crop's side."""

TEMPLATE_NAMES: Mapping[str, Template] = {"face2vec": FIVE_POINTS, "insightface": INSIGHTFACE}
"""Templates that a JSON description may refer to by name."""

_CHOICES = {
    "alignment": get_args(Alignment),
    "standardization": get_args(Standardization),
    "channels": get_args(Channels),
    "layout": get_args(Layout),
    "format": get_args(FormatName),
}


@dataclass(frozen=True)
class ModelDescription:
    """Description of a model: alignment of crops, standardisation of pixels, and origin.

    Attributes:
        key: name of the model.
        dimension: dimension of an embedding.
        input_size: side in pixels of the square crop.
        alignment: ``"landmarks"`` maps the five landmarks to ``template``;
            ``"margin"`` cuts the enlarged box.
        template: for ``"landmarks"``, five (x, y) fractions of the crop's side
            in the order of a face's landmarks; otherwise None.
        margin: for ``"margin"``, the pixels of ``margin_size`` outside the box:
            the box is enlarged until it covers
            (margin_size − margin) / margin_size of each side, clipped to the
            photo, stretched to margin_size and centre-cropped to input_size.
        margin_size: for ``"margin"``, the side in pixels to which the enlarged
            box is stretched, at least ``input_size``; otherwise 0.
        standardization: ``"fixed"`` is (x − mean) / std;
            ``"per-image"`` is (x − m) / max(s, 1/√n) with the mean m and the
            standard deviation s of all n values of a crop.
        mean: mean for ``"fixed"``, one number or three for R, G and B; pixels
            are 0…255.
        std: standard deviation for ``"fixed"``, one number or three for R, G
            and B; mean 0 and std 1 leave pixels unchanged.
        channels: order of the colour channels of the input.
        layout: order of the axes of the input.
        mirror: whether embeddings of a crop and its mirror image are averaged.
        format: format of the file at ``url``.
        url: address of the weights file.
        sha256: SHA-256 of the weights file, in lower-case hexadecimal.
        size_bytes: size of the weights file.
        licence: licence of the weights file.
        trained_on: the training set.
        commercial_use: conditions of commercial use.
        lfw: a published accuracy on Labeled Faces in the Wild, with its source.

    Raises:
        ModelError: a value is invalid; the message says which and what is allowed.
    """

    key: str
    dimension: int
    input_size: int
    alignment: Alignment
    template: Template | None = None
    margin: int = 0
    margin_size: int = 0
    standardization: Standardization = "fixed"
    mean: float | ByChannel = 127.5
    std: float | ByChannel = 127.5
    channels: Channels = "RGB"
    layout: Layout = "NHWC"
    mirror: bool = False
    format: FormatName = "onnx"
    url: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    licence: str = "not stated"
    trained_on: str = "not stated"
    commercial_use: str = "not stated"
    lfw: str | None = None

    def __post_init__(self) -> None:
        for name in ("key", "licence", "trained_on", "commercial_use"):
            self._check(name, _is_text, "a non-empty text")
        self._check("dimension", _is_count, "a whole number above 0")
        self._check("input_size", _is_count, "a whole number of pixels above 0")
        for name, allowed in _CHOICES.items():
            self._check(name, allowed.__contains__, f"one of {', '.join(allowed)}")
        for name in ("mean", "std"):
            if isinstance(value := getattr(self, name), list):  # JSON has no tuples
                object.__setattr__(self, name, tuple(value))
        self._check("mean", _by_channel(_is_number), "a finite number, or three for R, G and B")
        self._check(
            "std",
            _by_channel(lambda v: _is_number(v) and v > 0),
            "a finite number above 0, or three for R, G and B",
        )
        self._check("mirror", lambda v: isinstance(v, bool), "true or false")
        self._check("url", _optional(_is_web_address), "an http or https address")
        self._check("sha256", _optional(_is_sha256), "64 lower-case hexadecimal digits")
        self._check("size_bytes", _optional(_is_count), "a whole number above 0")
        self._check("lfw", _optional(_is_text), "a non-empty text")
        if self.alignment == "landmarks":
            self._check_template()
        else:
            self._check_margin()

    @classmethod
    def from_json(cls, text: str, *, key: str = "custom") -> ModelDescription:
        """Read a description from JSON.

        ``dimension``, ``input_size``, ``alignment`` and the entries of that alignment
        are required. ``template`` may be ``"face2vec"``, the default five points, or
        ``"insightface"``.
        The entry ``file`` is ignored here; the function that opens the graph uses it.

        Args:
            text: a JSON object with the attributes of this class.
            key: name of the model if the JSON has none.

        Raises:
            ModelError: the text is not JSON, or an entry is unknown, missing or invalid.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ModelError(f"the description of model {key!r} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ModelError(f"the description of model {key!r} must be a JSON object: {{...}}")
        values = {"key": key, **values}
        values.pop("file", None)
        allowed = [field.name for field in fields(cls)]
        required = [field.name for field in fields(cls) if field.default is MISSING]
        if unknown := sorted(set(values) - set(allowed)):
            raise ModelError(
                f"the description of model {key!r} has unknown entries: {', '.join(unknown)}; "
                f"allowed are: file, {', '.join(allowed)}"
            )
        if missing := [name for name in required if name not in values]:
            raise ModelError(
                f"the description of model {key!r} lacks: {', '.join(missing)}; "
                f"required are: {', '.join(name for name in required if name != 'key')}"
            )
        template = values.get("template")
        if isinstance(template, str):
            if template not in TEMPLATE_NAMES:
                raise ModelError(
                    f"template {template!r} of model {key!r} is unknown; give five [x, y] "
                    f"fractions of the side, or one of: {', '.join(TEMPLATE_NAMES)}"
                )
            values["template"] = TEMPLATE_NAMES[template]
        return cls(**values)

    def to_json(self) -> str:
        """Encode as JSON that ``from_json`` decodes to an equal description."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def _check_template(self) -> None:
        if self.template is None:
            raise ModelError(
                f"model {self.key!r} is aligned by landmarks and has no template; give five "
                '(x, y) fractions of the side, or "face2vec" for the default ones'
            )
        try:
            template = tuple((float(x), float(y)) for x, y in self.template)
        except (TypeError, ValueError):
            template = ()
        if len(template) != 5 or not all(0 <= v <= 1 for point in template for v in point):
            raise ModelError(
                f"template of model {self.key!r} is {self.template!r}; it must be five (x, y) "
                "fractions of the crop's side, 0 to 1 (pixels divided by input_size)"
            )
        if len(set(template)) < 5:
            raise ModelError(f"template of model {self.key!r} has equal points: {template!r}")
        object.__setattr__(self, "template", template)
        if self.margin or self.margin_size:
            raise ModelError(
                f"model {self.key!r} is aligned by landmarks; margin {self.margin} and "
                f"margin_size {self.margin_size} belong to alignment 'margin'"
            )

    def _check_margin(self) -> None:
        if self.template is not None:
            raise ModelError(
                f"model {self.key!r} is aligned by margin; a template belongs to "
                "alignment 'landmarks'"
            )
        self._check("margin_size", _is_count, "a whole number of pixels above 0 (FaceNet: 182)")
        if self.margin_size < self.input_size:
            raise ModelError(
                f"margin_size {self.margin_size} of model {self.key!r} must be at least "
                f"input_size {self.input_size}"
            )
        size = self.margin_size
        self._check(
            "margin",
            lambda v: type(v) is int and 0 <= v < size,
            f"a whole number of pixels, 0 to margin_size {size} (FaceNet: 44)",
        )

    def _check(self, name: str, holds: _Test, must_be: str) -> None:
        value = getattr(self, name)
        if not holds(value):
            raise ModelError(f"{name} of model {self.key!r} is {value!r}; it must be {must_be}")


def standardize(crops: NDArray[np.uint8], description: ModelDescription) -> NDArray[np.float32]:
    """Convert crops to the input of a network.

    Args:
        crops: RGB uint8 (n, input_size, input_size, 3).
        description: defines the standardisation, the order of channels and the layout.

    Returns:
        A new array, float32 (n, s, s, 3) for the layout NHWC, (n, 3, s, s) for NCHW.

    Raises:
        ModelError: ``crops`` has another shape or dtype.
    """
    size = description.input_size
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (size, size, 3):
        raise ModelError(
            f"model {description.key!r} takes crops of shape (n, {size}, {size}, 3) and dtype "
            f"uint8, not {crops.shape} and {crops.dtype}"
        )
    ordered = crops if description.channels == "RGB" else crops[..., ::-1]
    if description.layout == "NCHW":
        ordered = ordered.transpose(0, 3, 1, 2)
    pixels = ordered.astype(np.float32, order="C")
    if description.standardization == "fixed":
        pixels -= _of_pixels(description.mean, description)
        pixels /= _of_pixels(description.std, description)
    else:
        _standardize_each(pixels.reshape(len(pixels), 3 * size * size))
    return pixels


def _of_pixels(value: float | ByChannel, description: ModelDescription) -> NDArray[np.float32]:
    """A number, or one for each channel, in the order and the layout of the network's input."""
    if not isinstance(value, tuple):
        return np.asarray(value, np.float32)
    ordered = value if description.channels == "RGB" else value[::-1]
    shape = (3, 1, 1) if description.layout == "NCHW" else (3,)
    return np.asarray(ordered, np.float32).reshape(shape)


def _standardize_each(rows: NDArray[np.float32]) -> None:
    """Standardise each row to mean 0 and standard deviation 1, in place.

    The standard deviation of a row is at least 1/√n, as in TensorFlow's
    per_image_standardization, so that a crop of one colour becomes zero.
    """
    n = rows.shape[1]
    rows -= rows.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
    # Not einsum: its order of summation depends on the number of rows, but the result of a crop
    # must not depend on the other crops of the batch.
    std = np.linalg.norm(rows, axis=1, keepdims=True) / math.sqrt(n)
    rows /= np.maximum(std, 1 / math.sqrt(n))


def check_precision(precision: str) -> None:
    """Check that a precision is supported for stored graphs.

    Raises:
        SettingsError: the precision is not supported.
    """
    if precision not in get_args(Precision):
        raise SettingsError(
            f"precision {precision!r} must be one of {', '.join(get_args(Precision))}"
        )


def _optional(holds: _Test) -> _Test:
    return lambda value: value is None or holds(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _by_channel(holds: _Test) -> _Test:
    """Whether a number, or each of three, passes a test."""

    def all_hold(value: Any) -> bool:
        if isinstance(value, tuple):
            return len(value) == 3 and all(map(holds, value))
        return holds(value)

    return all_hold


def _is_web_address(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
