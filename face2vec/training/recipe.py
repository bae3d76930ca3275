"""A training as one record, from faces to a model that `Face2Vec` takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import keras
import numpy as np

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
from face2vec.training.stages import FollowStages, StageBatches, StageTeacher, apart
from face2vec.training.trainer import (
    CURVES,
    Progress,
    Schedule,
    embed,
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
class Recipe:
    """Everything that a training depends on, beside the faces.

    Attributes:
        network: one of `face2vec.training.NETWORKS`.
        dimension: numbers in an embedding; None for the network's usual ones, or the teacher's.
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

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise SettingsError(f"no loss {self.loss!r}; there are {', '.join(LOSSES)}")
        if (self.loss == "distillation") != (self.teacher is not None):
            raise SettingsError("a teacher belongs to the loss distillation, and it needs one")
        if self.teacher_stages and self.teacher is None:
            raise SettingsError("stages of a teacher need a teacher")
        if not 0 < self.held_out < 1:
            raise SettingsError(f"held_out is {self.held_out}; it must be above 0 and below 1")

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
            exported model.
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
    objective, batches, measure = _task(recipe, network, learn, held, folder)
    if recipe.teacher_stages:
        first = _stage_by_stage(recipe, network, learn)
        _train(*first, recipe.stages, folder / STAGES, measure, watch)
    learner = Learner(network, objective)
    _train(learner, batches, recipe.schedule, folder, measure, watch)
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


def _stage_by_stage(
    recipe: Recipe, network: keras.Model, learn: Faces
) -> tuple[Learner, StageBatches]:
    """The stages of a network, each to learn what the teacher's does, and from what."""
    assert recipe.teacher is not None
    names = networks.stages(recipe.network)
    if len(names) != len(recipe.teacher_stages):
        raise SettingsError(
            f"{recipe.network} has {len(names)} stages that can learn from a teacher's, and "
            f"{len(recipe.teacher_stages)} tensors are named"
        )
    shapes = [network.get_layer(name).output.shape[1:] for name in names]
    teacher = StageTeacher(
        load_model(recipe.teacher), choose_runtime(), recipe.teacher_stages, shapes
    )
    batches = StageBatches(
        teacher, names, learn, Augmentation.none(),
        side=network.input_shape[1], size=recipe.batch, seed=recipe.seed,
    )  # fmt: skip
    return Learner(apart(network, names), FollowStages(names)), batches


def build(recipe: Recipe, description: ModelDescription) -> keras.Model:
    """The recipe's network with the weights that it starts from."""
    network = networks.build(recipe.network, description.dimension, description.input_size)
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


def _task(
    recipe: Recipe, network: keras.Model, learn: Faces, held: Faces, folder: Path
) -> tuple[Objective, Batches, Callable[[], dict[str, float]]]:
    """What is asked, with which batches, and how it is measured."""
    side: int = network.input_shape[1]
    crops = resized(held.crops, side)

    def told_apart() -> dict[str, float]:
        return {"tar": true_accept_rate(embed(network, crops), held.people)}

    if recipe.teacher is None:
        people = PeopleBatches(
            learn, recipe.augmentation, side=side, people=recipe.people,
            photos=recipe.photos, seed=recipe.seed,
        )  # fmt: skip
        return TellApart(recipe.loss, recipe.margin), people, told_apart
    teacher = Embedder(load_model(recipe.teacher), choose_runtime())
    wanted = clean_targets(teacher, held.crops)

    def followed() -> dict[str, float]:
        embeddings = embed(network, crops)
        cosine = float(np.mean(np.sum(embeddings * wanted, axis=1)))
        return {"cosine": cosine, "tar": true_accept_rate(embeddings, held.people)}

    kwargs = {"side": side, "size": recipe.batch, "seed": recipe.seed}
    how = recipe.augmentation
    batches: Batches
    if recipe.teacher_sees == "clean":
        targets = remembered_targets(folder / TARGETS, teacher, learn.crops)
        batches = RememberedBatches(targets, learn, how, **kwargs)
    else:
        batches = TaughtBatches(teacher, learn, how, **kwargs)
    return FollowTeacher(), batches, followed


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
