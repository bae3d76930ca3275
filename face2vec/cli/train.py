"""``face2vec train``: options for a `Recipe`, and its progress."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from face2vec.cli.common import FilePath, Number, quiet_option, say
from face2vec.errors import MissingExtraError, SettingsError
from face2vec.files import decoded
from face2vec.training import LOSSES, NETWORKS, OPTIMIZERS

if TYPE_CHECKING:
    from face2vec.models.description import ModelDescription
    from face2vec.training.faces import Faces
    from face2vec.training.trainer import Progress

BESIDE_RECIPE = ("teacher", "batch", "held_out", "seed")
BACKENDS = ("tensorflow", "jax", "torch")  # names of packages, and what Keras calls them


tables_option = click.option(
    "--table",
    "tables",
    multiple=True,
    type=FilePath(path_type=Path, dir_okay=False, exists=True),
    help="For a tar archive: a CSV file with the columns file, person and, optionally, held_out; "
    "once for each archive.",
)
aligned_option = click.option(
    "--aligned", is_flag=True, help="FACES are aligned crops: square, and of one size."
)


@click.command("train")
@click.argument("faces", nargs=-1, required=True)
@click.option(
    "--out",
    type=FilePath(path_type=Path, file_okay=False),
    required=True,
    help="Folder for checkpoint, curves and model; the same command resumes.",
)
@click.option(
    "--recipe",
    type=FilePath(path_type=Path, dir_okay=False, exists=True),
    help="A JSON file with all settings; only --teacher, --batch, --held-out and --seed "
    "can be given as well.",
)
@tables_option
@aligned_option
@click.option("--network", type=click.Choice(NETWORKS), default="mini", show_default=True)
@click.option("--dimension", type=click.IntRange(min=1), help="Length of an embedding.")
@click.option(
    "--start-from",
    metavar="KEY_OR_FILE",
    help="Fine-tune a catalogue model, an exported .onnx file or a .weights.h5 file.",
)
@click.option("--loss", type=click.Choice(LOSSES), default="semi-hard", show_default=True)
@click.option(
    "--teacher",
    metavar="KEY_OR_FILE",
    multiple=True,
    help="Teacher model for distillation; several are put together.",
)
@click.option(
    "--teacher-sees",
    type=click.Choice(("augmented", "clean")),
    default="augmented",
    show_default=True,
    help="What the teacher sees; with 'clean' it runs once, at the start.",
)
@click.option(
    "--teacher-stages",
    metavar="NAME,NAME…",
    help="Tensors of the teacher's graph that the stages learn first.",
)
@click.option(
    "--stage-epochs",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Epochs for that.",
)
@click.option(
    "--stage-rate",
    type=Number(min=0, min_open=True),
    default=8e-3,
    show_default=True,
    help="Highest learning rate for that.",
)
@click.option(
    "--margin",
    type=Number(0, 4),
    default=0.2,
    show_default=True,
    help="Margin of the triplet loss.",
)
@click.option(
    "--people",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="People in a batch of triplets.",
)
@click.option(
    "--photos",
    type=click.IntRange(min=2),
    default=4,
    show_default=True,
    help="Photos of each person in a batch.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    help="Crops in a batch of distillation.",
)
@click.option(
    "--epochs", type=click.IntRange(min=1), default=20, show_default=True, help="Number of epochs."
)
@click.option(
    "--rate",
    type=Number(min=0, min_open=True),
    default=3e-3,
    show_default=True,
    help="Highest learning rate.",
)
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="adamw", show_default=True)
@click.option(
    "--augment",
    type=click.Choice(("full", "light", "none")),
    default="full",
    show_default=True,
    help="Strength of the augmentation.",
)
@click.option(
    "--mix",
    type=Number(0, 1),
    default=0.0,
    show_default=True,
    help="Share of crops that are blended with another crop, for distillation.",
)
@click.option(
    "--held-out",
    type=Number(0, 1, min_open=True, max_open=True),
    default=0.04,
    show_default=True,
    help="Share that is held out to measure.",
)
@click.option(
    "--compute",
    type=click.Choice(("float32", "bfloat16")),
    default="float32",
    show_default=True,
    help="Precision of the layers; bfloat16 needs Keras on PyTorch.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@quiet_option
@click.pass_context
def train_command(
    ctx: click.Context,
    /,
    faces: tuple[str, ...],
    out: Path,
    quiet: bool,
    recipe: Path | None,
    **options: Any,
) -> None:
    """Train an embedding network on FACES.

    FACES is a folder with one folder of photos per person, a CSV file with the columns file and
    person, a tar archive of such folders, or tfds:celeb_a; several are put together. The result is
    OUT/NETWORK.onnx, which --model takes. If it was stopped or killed, the same command resumes it.
    """
    choose_backend()
    from face2vec.training.recipe import run

    teachers = options["teacher"]
    options["teacher"] = teachers[0] if len(teachers) == 1 else teachers or None
    given = {n for n in options if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    todo = _recipe(options) if recipe is None else _recipe_of(recipe, options, given)
    description = todo.description()
    found = faces_of(faces, options["tables"], description, aligned=options["aligned"])
    say(f"{len(found):,} faces of {len(found.names):,} named people")
    with _Bar(hidden=quiet) as bar:
        model = run(todo, found, out, watch=bar.show, description=description)
    say(f"The model: {model}\nUse it: face2vec index PHOTOS --model {model} --gallery …")


def faces_of(
    sources: tuple[str, ...], tables: tuple[Path, ...], model: ModelDescription, *, aligned: bool
) -> Faces:
    """The faces of all sources together.

    Raises:
        SettingsError: there is another number of tables than of sources, or nothing to train on.
    """
    from face2vec.training.faces import joined, load_faces

    return joined(
        [
            load_faces(source, model, table=table, aligned=aligned)
            for source, table in zip(sources, _one_each(tables, sources), strict=True)
        ]
    )


def _one_each(
    tables: tuple[Path, ...], faces: tuple[str, ...]
) -> tuple[Path, ...] | tuple[None, ...]:
    if tables and len(tables) != len(faces):
        raise SettingsError(
            f"{len(faces)} FACES and {len(tables)} --table; give one for each, in the same order"
        )
    return tables or (None,) * len(faces)


def choose_backend() -> None:
    """Choose the backend of Keras: TensorFlow, or another one if that is not installed.

    Raises:
        MissingExtraError: Keras, or every backend of it, is missing.
    """
    if importlib.util.find_spec("keras") is None:
        raise MissingExtraError("training", "keras", "train")
    there = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not there:
        raise MissingExtraError("training", "tensorflow", "train")
    os.environ.setdefault("KERAS_BACKEND", there[0])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow uses oneDNN by default only on the newest processors; with AVX2 it trains mini 1.6
    # times as fast.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def read_json(path: Path) -> dict[str, Any]:
    """The values of a recipe's file.

    Raises:
        SettingsError: the file is not a JSON object.
    """
    try:
        values = json.loads(decoded(path.read_bytes(), errors="strict"))
    except ValueError as error:
        raise SettingsError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds a {type(values).__name__}, not a recipe (a JSON object)")
    return values


def _recipe_of(path: Path, options: dict[str, Any], given: set[str]) -> Any:
    """The recipe of a file, with the options that may override it."""
    from face2vec.training.recipe import Recipe

    if wrong := given - set(BESIDE_RECIPE) - {"tables", "aligned"}:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(wrong))
        raise SettingsError(f"{names} cannot be given beside --recipe; change {path} instead")
    values = read_json(path)
    return Recipe.from_dict(values | {name: options[name] for name in given & set(BESIDE_RECIPE)})


def _recipe(options: dict[str, Any]) -> Any:
    from face2vec.training.augment import Augmentation
    from face2vec.training.recipe import Recipe
    from face2vec.training.trainer import Schedule

    how = {"full": Augmentation(), "light": Augmentation.light_one(), "none": Augmentation.none()}
    augmentation = replace(how[options["augment"]], mix=options["mix"])
    if options["mix"] and options["loss"] != "distillation":
        raise SettingsError(
            "--mix needs --loss distillation: a blend of two people has no identity"
        )
    same = (
        "network",
        "dimension",
        "loss",
        "start_from",
        "teacher",
        "teacher_sees",
        "margin",
        "batch",
        "people",
        "photos",
        "held_out",
        "seed",
        "compute",
    )
    optimizer = options["optimizer"]
    return Recipe(
        **{name: options[name] for name in same},
        teacher_stages=tuple(filter(None, (options["teacher_stages"] or "").split(","))),
        stages=Schedule(options["stage_epochs"], options["stage_rate"], optimizer=optimizer),
        schedule=Schedule(options["epochs"], options["rate"], optimizer=optimizer),
        augmentation=augmentation,
    )


class _Bar:
    """A progress bar over the steps, with the figures of the epoch so far."""

    def __init__(self, hidden: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="step", disable=hidden, dynamic_ncols=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Move the bar to the current step."""
        if self._bar.total != progress.steps or progress.step <= self._bar.n:  # another phase
            self._bar.reset(progress.steps)
            before = progress.step - 1
            self._bar.initial = self._bar.n = self._bar.last_print_n = before
        self._bar.set_description(f"epoch {progress.epoch}", refresh=False)
        figures = {name: f"{value:.3f}" for name, value in progress.figures.items()}
        self._bar.set_postfix(
            figures | {"faces/s": f"{progress.crops_a_second:.0f}"}, refresh=False
        )
        self._bar.update(1)
