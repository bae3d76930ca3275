"""From the name of a model to a graph that a runtime can load.

A model is a key of the catalogue, or a model file with a JSON description beside it. See
``models.formats`` for the formats of model files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from face2vec.calibration import Calibration
from face2vec.errors import CalibrationError, ModelError
from face2vec.files import decoded, expanded
from face2vec.fingerprint import ModelFingerprint
from face2vec.models.cache import cache_dir, sha256_of
from face2vec.models.catalogue import CATALOGUE, find_model, terms_in_words
from face2vec.models.description import ModelDescription, Precision, check_precision
from face2vec.models.formats import SUFFIXES, format_named, format_of

MIRROR_VARIABLE = "FACE2VEC_MODELS_URL"

SHIPPED = Path(__file__).parent
"""Folder of the models that are part of this package."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        description: describes its input and output.
        path: the .onnx or .xml file for the runtime.
        weights_sha256: SHA-256 in hexadecimal of the model's files: the weights file of a catalogue
            model or a Keras file; a user's own graph followed by its .bin or external data.
        origin: a key of the catalogue, or an absolute path.
    """

    description: ModelDescription
    path: Path
    weights_sha256: str
    origin: str

    def files(self) -> list[Path]:
        """The graph, and the files beside it with its weights."""
        return format_of(self.path).files(self.path)

    @cached_property
    def fingerprint(self) -> ModelFingerprint:
        """All that an embedding depends on, and where the model was found."""
        description = self.description
        template = description.template
        return ModelFingerprint(
            key=description.key,
            origin=self.origin,
            weights=self.weights_sha256,
            dimension=description.dimension,
            input_size=description.input_size,
            alignment=description.alignment,
            template=None if template is None else [*map(list, template)],
            margin=[description.margin, description.margin_size],
            standardization=[
                description.standardization,
                *(
                    list(v) if isinstance(v, tuple) else v
                    for v in (description.mean, description.std)
                ),
            ],
            channels=description.channels,
            mirror=description.mirror,
        )


def calibration_of(key: str, weights: str, origin: str) -> Calibration | None:
    """The calibration of a model: ``NAME.calibration.json`` beside its file, or a shipped one.

    Args:
        key: key of the model.
        weights: its `LoadedModel.weights_sha256`.
        origin: its `LoadedModel.origin`.

    Raises:
        CalibrationError: it is damaged, or belongs to other weights.
    """
    beside = Path(origin).with_suffix(".calibration.json")
    if Path(origin).is_absolute() and beside.is_file():
        try:
            calibration = Calibration.from_json(_text(beside))
        except UnicodeDecodeError as error:
            raise CalibrationError(f"{beside} is not UTF-8 ({error}); fit it again") from error
        if calibration.weights != weights:
            raise CalibrationError(
                f"{beside} belongs to other weights of {calibration.model!r}; fit it again: "
                "face2vec calibrate"
            )
        return calibration
    shipped = shipped_calibration(key)
    # A model of a user may have the name of one of this package.
    return shipped if shipped is not None and shipped.weights == weights else None


def shipped_calibration(key: str) -> Calibration | None:
    """The calibration of a catalogue model that is part of this package; None if there is none.

    Raises:
        CalibrationError: it is damaged.
    """
    if key not in CATALOGUE:  # a user's key may be no file name
        return None
    path = Path(__file__).with_name(f"{key}.calibration.json")
    if not path.is_file():
        return None
    return Calibration.from_json(path.read_text(encoding="utf-8"))


def is_on_this_machine(model: ModelDescription) -> bool:
    """Whether a catalogue model can be used without a network."""
    if model.url is None:
        return True
    cache = cache_dir()
    weights = cache / "weights" / model.url.rpartition("/")[2]
    return weights.is_file() or any((cache / "onnx").glob(f"{model.key}-*.onnx"))


def catalogue_fingerprint(model: str | os.PathLike[str]) -> ModelFingerprint | None:
    """The fingerprint of a catalogue model, without downloading it; None for any other model."""
    known = CATALOGUE.get(os.fspath(model))
    if known is None or known.sha256 is None:
        return None
    return LoadedModel(known, Path(), known.sha256, known.key).fingerprint


def fingerprint_of(model: str | os.PathLike[str]) -> ModelFingerprint:
    """The fingerprint of a model, without a download if it is in the catalogue.

    Args:
        model: as for `load_model`, or the path of a description whose entry ``sha256`` names
            weights that are not on this machine.

    Raises:
        UnknownModelError: neither a key nor the path of a model.
        ModelError: a file is missing, damaged or has no valid description.
    """
    known = catalogue_fingerprint(model)
    path = Path(expanded(model)).absolute()
    if known is None and path.suffix.lower() == ".json" and path.is_file():
        values = _json(path)
        is_there = "file" in values or any(path.with_suffix(end).is_file() for end in SUFFIXES)
        if not is_there:
            description = _description(path, path, {})
            if description.sha256 is None:
                raise ModelError(
                    f"{path} does not say which weights it describes; give their sha256 in the "
                    "description, or put the model file beside it"
                )
            known = LoadedModel(description, Path(), description.sha256, str(path)).fingerprint
    return load_model(model).fingerprint if known is None else known


def load_model(
    model: str | os.PathLike[str], *, precision: Precision = "fp32", progress: bool = True
) -> LoadedModel:
    """Make a model ready to run; download and convert it if necessary.

    Args:
        model: a key of the catalogue; or the path of a Keras weights file (.h5), an ONNX file or
            an OpenVINO IR file (.xml), with its description beside it as ``<stem>.json``; or the
            path of such a description, whose entry ``file`` names the model file. Weights files of
            catalogue models need no description.
        precision: how kernels are stored in a graph that is made from Keras weights.
        progress: show a progress bar for a download.

    Raises:
        UnknownModelError: neither a key nor the path of a model.
        DownloadError: the model could not be downloaded.
        ModelError: a file is missing, damaged or has no valid description.
        SettingsError: there is no such precision.
    """
    check_precision(precision)
    name = os.fspath(model)
    path = Path(expanded(name)).absolute()
    suffix = path.suffix.lower()
    if suffix not in (*SUFFIXES, ".json"):
        return _from_catalogue(find_model(name), precision, progress)
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    described = path.with_suffix(".json")
    file = _file_of(described) if suffix == ".json" else path
    return _from_file(file, described, precision, origin=str(path))


def _from_catalogue(
    description: ModelDescription, precision: Precision, progress: bool
) -> LoadedModel:
    key, sha256 = description.key, description.sha256
    if sha256 is None:
        raise ModelError(f"model {key!r} has no checksum in the catalogue")
    if description.url is None:
        graph = SHIPPED / f"{key}.onnx"
        if not graph.is_file():
            raise ModelError(f"{graph}, a part of face2vec, is missing; install face2vec again")
        _check_sha256(description, sha256_of([graph]), [graph])
    else:
        graph = format_named(description.format).graph(
            lambda: weights_of(key, progress=progress), key, sha256, description, precision
        )
    return LoadedModel(description, graph, sha256, origin=key)


def _from_file(file: Path, described: Path, precision: Precision, *, origin: str) -> LoadedModel:
    known = format_of(file)
    parts = known.files(file)
    sha256 = sha256_of(parts)
    published = _published(sha256)
    if published is not None and not described.is_file():
        description, name = published, published.key
    else:
        description, name = _description(described, file, known.example), sha256[:16]
        _check_sha256(description, sha256, parts)
    graph = known.graph(lambda: file, name, sha256, description, precision)
    return LoadedModel(description, graph, sha256, origin)


def published_as(file: Path) -> ModelDescription | None:
    """The catalogue model whose file this is, wherever it lies; None if it is none of them.

    Raises:
        ModelError: a file with its weights is missing, or it has another format than its name says.
    """
    return _published(sha256_of(format_of(file).files(file)))


def _published(sha256: str) -> ModelDescription | None:
    return next((m for m in CATALOGUE.values() if m.sha256 == sha256), None)


def weights_of(key: str, *, progress: bool = True) -> Path:
    """The file of a catalogue model that is not part of this package; downloaded if it is missing.

    With ``FACE2VEC_MODELS_URL``, it is downloaded from that folder instead of the model's address.

    Args:
        key: a key of the catalogue.
        progress: print the terms of the model and a progress bar on standard error if the file
            is downloaded.

    Raises:
        UnknownModelError: there is no such key.
        DownloadError: it could not be downloaded.
        ModelError: the model is part of this package.
    """
    from face2vec.models.download import download

    description = find_model(key)
    url, sha256 = description.url, description.sha256
    if url is None or sha256 is None:
        raise ModelError(f"model {key!r} is part of face2vec and has no file to download")
    file = url.rsplit("/", 1)[-1]
    mirror = os.environ.get(MIRROR_VARIABLE)
    return download(
        f"{mirror.rstrip('/')}/{file}" if mirror else url,
        cache_dir() / "weights" / file,
        sha256=sha256,
        size=description.size_bytes,
        progress=progress,
        terms=terms_in_words(description) if progress else "",
        retry=f"run face2vec models get {key} again where there is a network, or set "
        f"{MIRROR_VARIABLE} to the address of a folder that has the file; ",
    )


def _file_of(described: Path) -> Path:
    """The model file of a description: its entry ``file``, or the file with the same stem."""
    values = _json(described)
    if "file" in values:
        file = described.parent / str(values["file"])
        if file.suffix.lower() not in SUFFIXES:
            raise ModelError(
                f"{described}: file {values['file']!r} must end in one of {', '.join(SUFFIXES)}"
            )
        if not file.is_file():
            raise ModelError(f"{described}: {file} does not exist")
        return file
    found = [f for f in map(described.with_suffix, SUFFIXES) if f.is_file()]
    if len(found) != 1:
        raise ModelError(
            f"{described}: {len(found)} model files beside it have its name; name the model file "
            'in the entry "file"'
        )
    return found[0]


def _description(described: Path, model: Path, example: Mapping[str, object]) -> ModelDescription:
    """Read the description of a user's model."""
    if not described.is_file():
        raise ModelError(
            f"{model} has no description; write one to {described}, for example: "
            f"{json.dumps(dict(example))}"
        )
    try:
        return ModelDescription.from_json(_text(described), key=described.stem)
    except (ModelError, UnicodeDecodeError) as error:
        raise ModelError(f"{described}: {error}") from error


def _text(path: Path) -> str:
    """Text of a file that a user may have written, see `decoded`."""
    return decoded(path.read_bytes(), errors="strict")


def _json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(_text(path))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} must be a JSON object: {{...}}")
    return values


def _check_sha256(description: ModelDescription, found: str, files: Iterable[Path]) -> None:
    if description.sha256 not in (None, found):
        raise ModelError(
            f"the description of model {description.key!r} gives sha256 {description.sha256}, "
            f"but {' + '.join(map(str, files))} has {found}"
        )
