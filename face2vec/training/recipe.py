"""A training as one record, from faces to a model for `Face2Vec`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import keras
import numpy as np
from numpy.typing import NDArray

from face2vec.errors import SettingsError, TrainingError
from face2vec.files import expanded
from face2vec.models import CATALOGUE
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.models.store import load_model, weights_of
from face2vec.runtime.select import choose_runtime
from face2vec.training import LOSSES, curves, networks
from face2vec.training.augment import Augmentation
from face2vec.training.batches import (
    Batches,
    PeopleBatches,
    RememberedBatches,
    TaughtBatches,
)
from face2vec.training.export import export, load_exported, settle
from face2vec.training.faces import Faces
from face2vec.training.objectives import FollowTeacher, Learner, Objective, TellApart
from face2vec.training.stages import (
    FollowHints,
    FollowStages,
    StageBatches,
    StageTeacher,
    apart,
    on_the_way,
)
from face2vec.training.teachers import Teachers, remembered_targets, resized
from face2vec.training.trainer import (
    CHECKPOINT,
    CURVES,
    Progress,
    Schedule,
    embed,
    mean_of,
    standardized,
    train,
    true_accept_rate,
)

log = logging.getLogger("face2vec")

RECIPE = "recipe.json"
TARGETS = "targets.npy"
STAGES = "stages"
HELD_OUT_SEED = 0
SETTLED_ON = 128  # crops
MEASURED_ON = 2_000  # held-out crops


@dataclass(frozen=True)
class Phase:
    """One phase of a training, with its own task, length and learning rate.

    Attributes:
        name: name of the phase, and of the subfolder for its checkpoint and curves.
        schedule: length and learning rate.
        asks: ``"embedding"``: the recipe's loss. ``"stages"``: each stage of the network gets the
            teacher's maps and learns its next maps, all stages at the same time. ``"hints"``: the
            teacher's embedding of the clean crop, and with a weight that falls to 0 the maps of its
            stages.
        hints: weight of the maps at the first step, relative to the embedding.
        widths: channels in the middle of blocks, see `networks.wider`; empty to keep them.
        after: phases whose final weights are averaged to start from; empty for those of the
            previous phase.
        shuffled: seed of order and augmentation, together with the recipe's.
        augmentation: strength of the augmentation.
    """

    name: str
    schedule: Schedule = field(default_factory=Schedule)
    asks: Literal["embedding", "stages", "hints"] = "embedding"
    hints: float = 0.0
    widths: networks.Widths = ()
    after: tuple[str, ...] = ()
    shuffled: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Recipe:
    """All settings of a training.

    Attributes:
        network: one of `face2vec.training.NETWORKS`.
        dimension: length of an embedding; None for the teacher's, or the network's default.
        loss: ``"semi-hard"`` and ``"batch-hard"`` triplets need names of people, ``"distillation"``
            needs a teacher.
        start_from: a catalogue key, or an exported .onnx or a .weights.h5 of the same network.
        teacher: key or file of a model, as for `Face2Vec`, or several, see `teachers.Teachers`.
        teacher_stages: names of tensors in the teacher's graph. If given, each stage of the network
            first learns one of them, before the whole network follows the embeddings.
        stages: length and learning rate of that.
        teacher_sees: ``"augmented"`` for the same crops as the student, or ``"clean"``, for which
            it runs only once.
        margin: margin of the triplet loss, in squared distance.
        batch: crops per step, for distillation.
        people: people per batch, for triplets.
        photos: of each person in a batch.
        held_out: share of the faces (for triplets: of the people) that is held out to measure.
        seed: seed of weights, order and augmentation.
        schedule: length and learning rate.
        augmentation: strength of the augmentation.
        phases: replace ``stages``, ``schedule`` and ``augmentation`` in a training with more than
            these two phases.
        compute: ``"float32"``, or ``"bfloat16"`` with Keras on PyTorch.
    """

    network: str = "mini"
    dimension: int | None = None
    loss: str = "semi-hard"
    start_from: str | None = None
    teacher: str | tuple[str, ...] | None = None
    teacher_stages: tuple[str, ...] = ()
    stages: Schedule = field(default_factory=Schedule)
    teacher_sees: Literal["augmented", "clean"] = "augmented"
    margin: float = 0.2
    batch: int = 64
    people: int = 16
    photos: int = 4
    held_out: float = 0.04
    seed: int = 0
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    phases: tuple[Phase, ...] = ()
    compute: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise SettingsError(f"unknown loss {self.loss!r}; choose one of {', '.join(LOSSES)}")
        if (self.loss == "distillation") != (self.teacher is not None):
            raise SettingsError(
                "the loss 'distillation' needs a teacher, and other losses take none"
            )
        if self.teacher_stages and self.teacher is None:
            raise SettingsError("stages of a teacher need a teacher")
        if not 0 < self.held_out < 1:
            raise SettingsError(f"held_out must be above 0 and below 1, not {self.held_out}")
        if self.compute == "bfloat16" and keras.backend.backend() != "torch":
            raise SettingsError(
                "compute 'bfloat16' needs Keras on PyTorch; set KERAS_BACKEND=torch"
            )
        before: set[str] = set()
        for phase in self.phases:
            if phase.asks != "embedding" and not self.teacher_stages:
                raise SettingsError(f"the phase {phase.name!r} needs the teacher's stages")
            if phase.asks == "hints" and self.teacher_sees != "clean":
                raise SettingsError(f"the phase {phase.name!r} needs teacher_sees 'clean'")
            if phase.name in before or not phase.name or not before.issuperset(phase.after):
                raise SettingsError(
                    f"the phase {phase.name!r} needs a name of its own, and phases that are "
                    f"before it in 'after', not {', '.join(phase.after) or 'none'}"
                )
            before.add(phase.name)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from the values of its JSON file; missing values are the defaults.

        Raises:
            SettingsError: a name is unknown, or the recipe is inconsistent.
        """
        return cast("Recipe", _made(cls, values))

    def teachers(self) -> tuple[str, ...]:
        """The teachers; the first gives the stages' maps."""
        if self.teacher is None:
            return ()
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    def in_phases(self) -> tuple[Phase, ...]:
        """The phases; a recipe without any has one or two."""
        if self.phases:
            return self.phases
        stages = Phase(STAGES, self.stages, "stages", augmentation=Augmentation.none())
        whole = Phase("", self.schedule, augmentation=self.augmentation)
        return (stages, whole) if self.teacher_stages else (whole,)

    def description(self) -> ModelDescription:
        """How crops are cut for the network.

        Raises:
            SettingsError: ``start_from`` is a model of another network.
        """
        known = CATALOGUE.get(self.start_from or "")
        if known is not None and self.network == "inception_resnet_v1":
            if known.format != "keras":
                raise SettingsError(
                    f"start_from {known.key!r} is another network than {self.network}; give one "
                    "of FaceNet's models"
                )
            facts = asdict(known) | {"url": None, "sha256": None, "size_bytes": None, "lfw": None}
            return ModelDescription(**facts | {"key": "fine-tuned"})
        side = networks.side(self.network)
        return ModelDescription(
            self.network, self._dimension(), side, "landmarks", template=FIVE_POINTS
        )

    def _dimension(self) -> int:
        if self.dimension is not None:
            return self.dimension
        teachers = self.teachers()
        if len(teachers) == 1:
            return load_model(teachers[0]).description.dimension
        return networks.usual_dimension(self.network)


NESTED = {"stages": Schedule, "schedule": Schedule, "augmentation": Augmentation}


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """A recipe, or a part of one, from the values of a JSON file."""
    names = {one.name for one in fields(kind)}
    if not isinstance(values, Mapping) or set(values) - names:
        wrong = ", ".join(sorted(set(values) - names)) if isinstance(values, Mapping) else values
        raise SettingsError(
            f"{kind.__name__} has no setting {wrong}; it has {', '.join(sorted(names))}"
        )
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name in NESTED:
            value = _made(NESTED[name], value)
        elif name == "phases":
            value = tuple(_made(Phase, phase) for phase in value)
        elif name == "widths":
            value = tuple(map(tuple, value))
        elif isinstance(value, list):
            value = tuple(value)
        given[name] = value
    return kind(**given)


def run(
    recipe: Recipe,
    faces: Faces,
    folder: str | Path,
    *,
    watch: Callable[[Progress], None] = lambda _: None,
    description: ModelDescription | None = None,
    targets: NDArray[np.float32] | None = None,
) -> Path:
    """Train, or resume an interrupted training, and export the model.

    Args:
        recipe: the settings.
        faces: crops aligned as ``recipe.description()`` says, of any size.
        folder: folder for checkpoint, curves, recipe, the teacher's targets, the Keras weights and
            the exported model, with a subfolder per phase of a recipe with phases.
        watch: called with the progress after each step.
        description: description of the exported model; None for that of the recipe.
        targets: the teachers' embeddings of ``faces`` if they are known, float32 (n, d) of unit
            length; None to compute them.

    Returns:
        Path of the .onnx file, for ``Face2Vec(model=…)``.

    Raises:
        SettingsError: faces, network and loss do not match.
        TrainingError: the folder contains a training of another recipe, or this one diverged.
    """
    folder = Path(expanded(folder))
    _claim(folder, recipe)
    keras.utils.set_random_seed(recipe.seed)
    description = description or recipe.description()
    network = build(recipe, description)
    # For any seed, so that trainings that build on each other are measured on the same faces.
    by_person = recipe.loss != "distillation"
    rows, others = faces.split_rows(recipe.held_out, HELD_OUT_SEED, by_person)
    learn, held = faces.only(rows), faces.only(others)
    targets = None if targets is None else targets[rows]
    if recipe.start_from is not None:
        some = learn.crops[:: max(1, len(learn) // SETTLED_ON)][:SETTLED_ON]
        settle(network, standardized(resized(some, network.input_shape[1])))
    lessons = _Lessons(recipe, learn, held, folder, description.dimension, targets)
    for phase in recipe.in_phases():
        if phase.after:
            mean_of([folder / name / CHECKPOINT for name in phase.after], network)
        if phase.widths:
            network = networks.wider(network, phase.widths)
        measure = partial(lessons.measured, network)
        log.info("training, %s", phase.name or recipe.network)
        learner, batches = lessons.of(phase, network)
        _train(learner, batches, phase.schedule, folder / phase.name, measure, watch)
    network.save_weights(folder / f"{recipe.network}.weights.h5")
    path = folder / f"{recipe.network}.onnx"
    export(network, path, description)
    return path


def _train(
    learner: Learner,
    batches: Batches,
    schedule: Schedule,
    folder: Path,
    measure: Callable[[], dict[str, float]],
    watch: Callable[[Progress], None],
) -> None:
    try:
        train(learner, batches, schedule, folder, measure=measure, watch=watch)
    finally:
        if (folder / CURVES).exists():
            curves.plot(folder / CURVES)


class _Lessons:
    """The objectives and batches of a recipe's phases, and the measurement of its network."""

    def __init__(
        self,
        recipe: Recipe,
        learn: Faces,
        held: Faces,
        folder: Path,
        dimension: int,
        targets: NDArray[np.float32] | None,
    ) -> None:
        step = -(-len(held) // MEASURED_ON)
        held = held.only(np.arange(0, len(held), step))
        self._recipe, self._learn, self._held = recipe, learn, held
        self._half = recipe.compute == "bfloat16"
        self._wanted: NDArray[np.float32] | None = None
        if recipe.teachers():
            self._teacher = Teachers(recipe.teachers(), choose_runtime())
            shorter = dimension < self._teacher.dimension
            if recipe.teacher_sees == "clean" or recipe.teacher_stages or shorter:
                self._targets = (
                    remembered_targets(folder / TARGETS, self._teacher, learn.crops)
                    if targets is None
                    else targets
                )
            if shorter:
                self._targets = self._teacher.shorten(dimension, self._targets)
            self._wanted = self._teacher.of_all(held.crops)

    def of(self, phase: Phase, network: keras.Model) -> tuple[Learner, Batches]:
        recipe, how = self._recipe, phase.augmentation
        side: int = network.input_shape[1]
        seed = recipe.seed + phase.shuffled
        settings = {"side": side, "size": recipe.batch, "seed": seed}
        batches: Batches
        if phase.asks != "embedding":
            names, teacher = self._stages(network)
            alone = phase.asks == "stages"
            batches = StageBatches(
                self._targets, teacher, names, self._learn, how, given=alone, **settings
            )
            if alone:
                return self._learner(apart(network, names), FollowStages(names)), batches
            follow = FollowHints(names, phase.hints)
            return self._learner(on_the_way(network, names), follow), batches
        if recipe.teacher is None:
            batches = PeopleBatches(
                self._learn, how, side=side, people=recipe.people, photos=recipe.photos, seed=seed
            )
            return self._learner(network, TellApart(recipe.loss, recipe.margin)), batches
        if recipe.teacher_sees == "clean":
            batches = RememberedBatches(self._targets, self._learn, how, **settings)
        else:
            batches = TaughtBatches(self._teacher, self._learn, how, **settings)
        return self._learner(network, FollowTeacher()), batches

    def measured(self, network: keras.Model) -> dict[str, float]:
        """Metrics on the held-out faces."""
        embeddings = embed(network, resized(self._held.crops, network.input_shape[1]))
        tar = {"tar": true_accept_rate(embeddings, self._held.people)}
        if self._wanted is None:
            return tar
        return {"cosine": float(np.mean(np.sum(embeddings * self._wanted, axis=1))), **tar}

    def _learner(self, network: keras.Model, objective: Objective) -> Learner:
        return Learner(network, objective, self._half)

    def _stages(self, network: keras.Model) -> tuple[tuple[str, ...], StageTeacher]:
        """The teacher, and the network's stages that learn from its stages."""
        recipe = self._recipe
        names = networks.stages(recipe.network)
        if len(names) != len(recipe.teacher_stages):
            raise SettingsError(
                f"{recipe.network} has {len(names)} stages that can learn from a teacher's, but "
                f"teacher_stages has {len(recipe.teacher_stages)}"
            )
        shapes = [network.get_layer(name).output.shape[1:] for name in names]
        tensors, model = recipe.teacher_stages, load_model(recipe.teachers()[0])
        return names, StageTeacher(model, choose_runtime(), tensors, shapes)


def build(recipe: Recipe, description: ModelDescription) -> keras.Model:
    """The recipe's network with its initial weights."""
    first = next((phase.widths for phase in recipe.phases[:1]), ())
    more = {"widths": first} if first else {}
    network = networks.build(recipe.network, description.dimension, description.input_size, **more)
    start = recipe.start_from
    if start is None:
        return network
    path = Path(expanded(start))
    if start.endswith(".weights.h5"):
        network.load_weights(path)
    elif path.suffix == ".onnx" or not path.suffix:
        model = load_model(start) if path.suffix else None
        if model is None and recipe.network == "inception_resnet_v1":
            networks.load_facenet_weights(network, weights_of(start))
        else:
            load_exported(network, (model or load_model(start)).path)
    else:
        networks.load_facenet_weights(network, path)
    return network


def _claim(folder: Path, recipe: Recipe) -> None:
    """Store the recipe, or verify that the folder contains a training of the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECIPE
    words = json.dumps(asdict(recipe), indent=2)
    if not path.exists():
        path.write_text(words + "\n", encoding="utf-8")
        return
    other, mine = json.loads(path.read_text(encoding="utf-8")), json.loads(words)
    if other != mine:
        apart = [name for name in mine if mine[name] != other.get(name)]
        raise TrainingError(
            f"{folder} contains a training with another {', '.join(apart)}; give the same settings "
            "to resume it, or another folder"
        )
