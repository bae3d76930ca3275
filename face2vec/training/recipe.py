"""A training as one record, from faces to a model that `Face2Vec` takes."""

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

from face2vec.encoding.embed import Embedder
from face2vec.errors import SettingsError, TrainingError
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
    clean_targets,
    remembered_targets,
    resized,
)
from face2vec.training.export import export, load_exported, settle
from face2vec.training.faces import Faces
from face2vec.training.objectives import FollowTeacher, Learner, Objective, TellApart
from face2vec.training.stages import (
    FollowHints,
    FollowStages,
    HintBatches,
    StageBatches,
    StageTeacher,
    apart,
    on_the_way,
)
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


@dataclass(frozen=True)
class Phase:
    """A part of a training, with an aim, a length and a rate of its own.

    Attributes:
        name: of the folder below the training's own that gets its checkpoint and curves.
        schedule: how long and how fast.
        asks: ``"embedding"``: what the recipe's loss says. ``"stages"``: each stage of the network
            is given the maps of a teacher's and asked for its next ones, all at the same time.
            ``"hints"``: the teacher's embedding of the clean crop and, less and less, the maps of
            its stages.
        hints: how much the maps weigh at first, beside the embedding.
        widths: channels in the middle of blocks, see `networks.wider`; as before if empty.
        after: phases from the mean of whose ends it starts; from the end of the last one if empty.
        shuffled: decides order and augmentation, with the seed.
        augmentation: how far crops are changed.
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
    """Everything that a training depends on, beside the faces.

    Attributes:
        network: one of `face2vec.training.NETWORKS`.
        dimension: of an embedding; None for the network's usual one, or the teacher's.
        loss: ``"semi-hard"`` and ``"batch-hard"`` triplets need names of people,
            ``"distillation"`` a teacher.
        start_from: a catalogue key, or an exported .onnx or a .weights.h5 of the same network.
        teacher: key or file of a model, as `Face2Vec` takes it.
        teacher_stages: names of tensors in the teacher's graph. Where they are given, the stages
            of the network learn them, one each, before the whole follows the embeddings.
        stages: how long and how fast that is.
        teacher_sees: the ``"augmented"`` crops that the student sees, or, once, ``"clean"`` ones.
        margin: of the triplets, in squared distance.
        batch: crops a step, for distillation.
        people: in a batch, for triplets.
        photos: of each person in a batch.
        held_out: share of the faces (for triplets: of the people) that is measured with.
        seed: decides weights, order and augmentation.
        schedule: how long and how fast.
        augmentation: how far crops are changed.
        phases: in the place of ``stages``, ``schedule`` and ``augmentation``, for a training of
            more than these two parts.
        compute: ``"float32"``, or ``"bfloat16"`` where Keras runs on PyTorch.
    """

    network: str = "mini"
    dimension: int | None = None
    loss: str = "semi-hard"
    start_from: str | None = None
    teacher: str | None = None
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
            raise SettingsError(f"no loss {self.loss!r}; there are {', '.join(LOSSES)}")
        if (self.loss == "distillation") != (self.teacher is not None):
            raise SettingsError("a teacher belongs to the loss distillation, and it needs one")
        if self.teacher_stages and self.teacher is None:
            raise SettingsError("stages of a teacher need a teacher")
        if not 0 < self.held_out < 1:
            raise SettingsError(f"held_out is {self.held_out}; it must be above 0 and below 1")
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
        """A recipe from what a JSON file of one holds; what is not there is as usual.

        Raises:
            SettingsError: a name is not known, or the recipe cannot be.
        """
        return cast("Recipe", _made(cls, values))

    def in_phases(self) -> tuple[Phase, ...]:
        """The phases, also of a recipe that names none."""
        if self.phases:
            return self.phases
        stages = Phase(STAGES, self.stages, "stages", augmentation=Augmentation.none())
        whole = Phase("", self.schedule, augmentation=self.augmentation)
        return (stages, whole) if self.teacher_stages else (whole,)

    def description(self) -> ModelDescription:
        """How crops are cut for the network."""
        known = CATALOGUE.get(self.start_from or "")
        if known is not None and self.network == "inception_resnet_v1":
            facts = asdict(known) | {"url": None, "sha256": None, "size_bytes": None, "lfw": None}
            return ModelDescription(**facts | {"key": "fine-tuned"})
        side = networks.side(self.network)
        return ModelDescription(
            self.network, self._dimension(), side, "landmarks", template=FIVE_POINTS
        )

    def _dimension(self) -> int:
        if self.dimension is not None:
            return self.dimension
        if self.teacher is not None:
            return load_model(self.teacher).description.dimension
        return networks.USUAL_DIMENSION.get(self.network, 128)


NESTED = {"stages": Schedule, "schedule": Schedule, "augmentation": Augmentation}


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """A recipe, or a part of one, of the values of a JSON file."""
    names = {one.name for one in fields(kind)}
    if not isinstance(values, Mapping) or set(values) - names:
        wrong = ", ".join(sorted(set(values) - names)) if isinstance(values, Mapping) else values
        raise SettingsError(f"{kind.__name__} has no {wrong}; it has {', '.join(sorted(names))}")
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
) -> Path:
    """Train, or go on with what was interrupted, and export.

    Args:
        recipe: what to do.
        faces: crops cut by ``recipe.description()``, or larger or smaller square ones.
        folder: gets checkpoint, curves, recipe, a teacher's targets, the Keras weights and the
            exported model; of a recipe with phases, a folder a phase.
        watch: is told of the progress after each step.
        description: of the exported model; that of the recipe if None.

    Returns:
        Path of the .onnx file, which ``Face2Vec(model=…)`` takes.

    Raises:
        SettingsError: faces, network and loss do not fit.
        TrainingError: the folder holds another recipe's training, or this one diverged.
    """
    folder = Path(folder)
    _claim(folder, recipe)
    keras.utils.set_random_seed(recipe.seed)
    description = description or recipe.description()
    network = build(recipe, description)
    # Whatever the seed: a training that starts from another is measured with the same faces.
    learn, held = faces.split(recipe.held_out, HELD_OUT_SEED, recipe.loss != "distillation")
    if recipe.start_from is not None:
        some = learn.crops[:: max(1, len(learn) // SETTLED_ON)][:SETTLED_ON]
        settle(network, standardized(resized(some, network.input_shape[1])))
    lessons = _Lessons(recipe, learn, held, folder)
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
    """What the phases of a recipe ask, with which batches, and how a network is measured."""

    def __init__(self, recipe: Recipe, learn: Faces, held: Faces, folder: Path) -> None:
        self._recipe, self._learn, self._held = recipe, learn, held
        self._half = recipe.compute == "bfloat16"
        self._wanted: NDArray[np.float32] | None = None
        if recipe.teacher is not None:
            self._teacher = Embedder(load_model(recipe.teacher), choose_runtime())
            self._wanted = clean_targets(self._teacher, held.crops)
            if recipe.teacher_sees == "clean":
                self._targets = remembered_targets(folder / TARGETS, self._teacher, learn.crops)

    def of(self, phase: Phase, network: keras.Model) -> tuple[Learner, Batches]:
        recipe, how = self._recipe, phase.augmentation
        side: int = network.input_shape[1]
        seed = recipe.seed + phase.shuffled
        settings = {"side": side, "size": recipe.batch, "seed": seed}
        batches: Batches
        if phase.asks != "embedding":
            names, teacher = self._stages(network)
            if phase.asks == "stages":
                batches = StageBatches(teacher, names, self._learn, how, **settings)
                return self._learner(apart(network, names), FollowStages(names)), batches
            batches = HintBatches(self._targets, teacher, names, self._learn, how, **settings)
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
        """Figures of the faces that are held out."""
        embeddings = embed(network, resized(self._held.crops, network.input_shape[1]))
        tar = {"tar": true_accept_rate(embeddings, self._held.people)}
        if self._wanted is None:
            return tar
        return {"cosine": float(np.mean(np.sum(embeddings * self._wanted, axis=1))), **tar}

    def _learner(self, network: keras.Model, objective: Objective) -> Learner:
        return Learner(network, objective, self._half)

    def _stages(self, network: keras.Model) -> tuple[tuple[str, ...], StageTeacher]:
        """The stages of the network that learn from a teacher's, and the teacher."""
        recipe = self._recipe
        assert recipe.teacher is not None
        names = networks.stages(recipe.network)
        if len(names) != len(recipe.teacher_stages):
            raise SettingsError(
                f"{recipe.network} has {len(names)} stages that can learn from a teacher's, and "
                f"{len(recipe.teacher_stages)} tensors are named"
            )
        shapes = [network.get_layer(name).output.shape[1:] for name in names]
        tensors, model = recipe.teacher_stages, load_model(recipe.teacher)
        return names, StageTeacher(model, choose_runtime(), tensors, shapes)


def build(recipe: Recipe, description: ModelDescription) -> keras.Model:
    """The recipe's network with the weights that it starts from."""
    first = next((phase.widths for phase in recipe.phases[:1]), ())
    more = {"widths": first} if first else {}
    network = networks.build(recipe.network, description.dimension, description.input_size, **more)
    start = recipe.start_from
    if start is None:
        return network
    path = Path(start)
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
    """Write the recipe down, or see that the folder holds a training of the same one."""
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
            f"{folder} holds a training with another {', '.join(apart)}; give the same settings "
            "to go on with it, or another folder"
        )
