"""Compare stated false accept rates with counted ones, for many kinds of people.

    python benchmarks/fairness.py MODEL --fit CELEBA/identity.txt --set NAME=FOLDER … \
        --tight NAME … --faces FACES.tar --table FACES.csv …

Of each set of known people, and each slice of it by its ``labels.csv``, the pairs of different
people are counted that reach the threshold of a stated rate: with a calibration that does not know
how near strangers come to a face (*before*), with the shipped one (*verify*, or a gallery of people
of all kinds), and with the shipped one in a gallery of these faces alone (*gallery*).
``--tight`` sets are cut so tightly that a detector needs a margin: they are put on a grey ground of
twice their size. Of archives of aligned faces of different people (rows divisible by 5 of the sets
utk, ff and aaf, which were not trained on), slices of origin, sex and age are counted.
"""

from __future__ import annotations

import csv
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import arguments, publish, table
from PIL import Image

from face2vec.calibration import Calibration
from face2vec.cohort import LOOKED_AT
from face2vec.encoding.embed import Embedder
from face2vec.evaluation.fitting import fitted
from face2vec.evaluation.sets import named_faces, named_photos, photos_in
from face2vec.models import calibration_of, load_model
from face2vec.reliability import over_stated
from face2vec.runtime.select import choose_runtime
from face2vec.training.teachers import resized

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")
FARS = (1e-3, 1e-4)
FEWEST = (20_000, 200_000)  # impostor pairs
DRAWS = 200
ORIGIN = ("White", "Black", "Asian", "Indian", "other")
SEX = {"0": "men", "1": "women", "m": "men", "f": "women"}
KNOWN_PEOPLE, MANY = "people", 3000
TITLES = ("pairs of", "faces", "÷ at 1e-3, before", "verify", "gallery", "95 %",
          "÷ at 1e-4, before", "verify", "gallery", "≥ 0.99 of 10,000, before", "verify", "gallery",
          "TAR at true 1e-3, before", "verify", "gallery",
          "÷ at 1e-3 without labels, verify", "gallery")  # fmt: skip


class Group:
    """Faces of one set or slice, with the people that they show."""

    def __init__(self, name: str, embeddings: np.ndarray, people: np.ndarray) -> None:
        self.name, self.embeddings = name, embeddings
        self.people = np.unique(people, return_inverse=True)[1]

    def only(self, name: str, rows: np.ndarray) -> Group:
        """Some of the faces."""
        return Group(name, self.embeddings[rows], self.people[rows])


def age_slice(years: float) -> str:
    return "under 13" if years < 13 else "13 to 17" if years < 18 else "adults"


def words_of(row: dict[str, str]) -> tuple[str, str, str]:
    """Age, sex and origin of a face in a table of training faces; "" for what is not known."""
    return (
        age_slice(float(row["age"])) if row["age"] else "",
        SEX.get(row["sex"], ""),
        ORIGIN[int(row["origin"])] if row["origin"] else "",
    )


def labelled(folder: Path, name: str, group: Group, photos: tuple[Path, ...]) -> Iterator[Group]:
    """Slices by the columns of labels.csv."""
    for _, values in labels(folder, photos):
        for value in np.unique(values):
            yield group.only(f"{name}, {value}", values == value)


def labels(folder: Path, photos: tuple[Path, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of labels.csv that divide photos, with each photo's value."""
    if not (folder / "labels.csv").is_file():
        return
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        facts = {(row["person"], row["n"]): row for row in csv.DictReader(stream)}
    rows = [facts[photo.parent.name, photo.stem] for photo in photos]
    for column in rows[0]:
        values = [row[column] for row in rows]
        if column == "sex":
            values = [SEX[value] for value in values]
        elif column == "mask":
            values = ["bare" if value == "no-mask" else "masked" for value in values]
        elif column == "age":
            values = [age_slice(float(value)) for value in values]
        elif column not in ("pose", "group"):
            continue
        if len(set(values)) > 1:
            yield column, np.array(values)


def on_grey(folder: Path, out: Path) -> Path:
    for photo in folder.glob("*/*.*"):
        with Image.open(photo) as image:
            width, height = image.size
            ground = Image.new("RGB", (2 * width, 2 * height), (128, 128, 128))
            ground.paste(image.convert("RGB"), (width // 2, height // 2))
        target = out / photo.parent.name / f"{photo.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        ground.save(target)
    return out


def held_out(archive: str, listed: str, model: str) -> Iterator[Group]:
    """Slices of origin, sex and age, of different people that were not trained on."""
    loaded = load_model(model)
    embed = Embedder(loaded, choose_runtime())
    with Path(listed).open(newline="", encoding="utf-8") as stream:
        rows = {
            row["file"]: row
            for n, row in enumerate(csv.DictReader(stream))
            if n % 5 == 0 and row["set"] in ("utk", "ff", "aaf") and row["age"]
        }
    crops, facts = [], []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in rows:
                data = tar.extractfile(member).read()
                crops.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
                facts.append(rows[member.name])
    if not crops:
        return
    embeddings = embed(resized(np.stack(crops), loaded.description.input_size))
    everybody = Group("", embeddings, np.arange(len(embeddings)))
    words = [(row["set"], *words_of(row)) for row in facts]
    for name in sorted({word[0] for word in words}):
        for keys in ((1,), (1, 2), (1, 3), (1, 2, 3)):
            for value in sorted({tuple(w[k] for k in keys) for w in words if w[0] == name}):
                some = [w[0] == name and tuple(w[k] for k in keys) == value for w in words]
                if all(value) and sum(some) * (sum(some) - 1) // 2 >= FEWEST[0]:
                    rows_of = np.flatnonzero(some)[:MANY]
                    yield everybody.only(f"{name}, {', '.join(value)}", rows_of)


class Counted:
    """Pairs of a group under one calibration."""

    def __init__(self, group: Group, calibration: Calibration) -> None:
        crowded = calibration.crowded(group.embeddings)
        first, second = np.triu_indices(len(group.people), 1)
        alike = (group.embeddings @ group.embeddings.T)[first, second].astype(np.float64)
        self.adjusted = alike - (crowded[first] + crowded[second]) / 2
        self.same = group.people[first] == group.people[second]
        self.first, self.second = group.people[first], group.people[second]
        self.strangers = self.adjusted[~self.same]
        self.calibration = calibration

    def ratio(self, far: float) -> float:
        """Counted over stated false accepts."""
        return float((self.strangers >= self.calibration.threshold(far)).mean() / far)

    def interval(self, far: float) -> tuple[float, float]:
        """95 % interval by a bootstrap over people."""
        accepted = self.adjusted >= self.calibration.threshold(far)
        count = int(max(self.first.max(), self.second.max())) + 1
        pairs = np.zeros((count, count))
        hits = np.zeros((count, count))
        np.add.at(pairs, (self.first, self.second), ~self.same)
        np.add.at(hits, (self.first, self.second), accepted & ~self.same)
        rng, found = np.random.default_rng(0), []
        for _ in range(DRAWS):
            times = np.bincount(rng.integers(0, count, count), minlength=count).astype(float)
            found.append((times @ hits @ times) / max(times @ pairs @ times, 1) / far)
        return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))

    def sure(self) -> float:
        """Strangers in 10,000 pairs that are given a probability of 0.99 or more."""
        stated = self.calibration.probability(self.strangers)
        return float((stated >= 0.99).mean() * 10_000)

    def tar(self, far: float) -> float:
        """True accept rate at the rate that is counted in this group."""
        highest = np.sort(self.strangers)[::-1]
        return float((self.adjusted[self.same] > highest[int(far * len(highest))]).mean())


def line(group: Group, before: Calibration, now: Calibration) -> list[str]:
    order = np.random.default_rng(0).permutation(len(group.people))[:LOOKED_AT]
    drawn = group.embeddings[order]
    gallery = now.among(drawn)
    each = [Counted(group, calibration) for calibration in (before, now, gallery)]
    pairs, mates = len(each[0].strangers), each[0].same.sum()
    cells = [group.name, f"{len(group.people):,}", *(f"{one.ratio(FARS[0]):.1f}" for one in each)]
    cells[-1] = f"**{cells[-1]}**"
    low, high = each[-1].interval(FARS[0])
    cells.append(f"{low:.1f} … {high:.1f}")
    cells += [f"{one.ratio(FARS[1]):.1f}" if pairs >= FEWEST[1] else "–" for one in each]
    cells += [f"{one.sure():.0f}" for one in each]
    cells += [f"{one.tar(FARS[0]):.1%}" if mates >= 50 else "–" for one in each]
    estimated = [over_stated(one, one.tail(drawn), FARS[0]) for one in (now, gallery)]
    return cells + [f"{ratio:.1f}" for ratio in estimated]


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--fit", type=Path, required=True, help="what the model's own is fitted on")
    parser.add_argument("--fit-gallery", type=Path)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--keep", type=Path, help="keep the galleries of the sets there")
    parser.add_argument("--tight", action="append", default=[], metavar="NAME")
    parser.add_argument("--faces", action="append", default=[])
    parser.add_argument("--table", action="append", default=[])
    given = parser.parse_args()
    loaded = load_model(given.model)
    shipped = calibration_of(loaded.description.key, loaded.weights_sha256, loaded.origin)
    assert shipped is not None
    people = named_faces(named_photos(given.fit), given.fit_gallery, model=given.model,
                         progress=True)  # fmt: skip
    before = fitted(people, None, data="")
    some = np.random.default_rng(0).permutation(len(people.people))[:MANY]
    rows = [line(Group("CelebA (fitted on)", people.embeddings[some], people.people[some]),
                 before, shipped)]  # fmt: skip
    for one in given.sets:
        name, _, place = one.partition("=")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(place)
            ground = (given.keep or Path(scratch)) / f"grey-{name}"
            root = on_grey(folder, ground) if name in given.tight else folder
            kept = None if given.keep is None else given.keep / f"{loaded.description.key}-{name}"
            found = named_faces(photos_in(root), kept, model=given.model, which="largest",
                                progress=True)  # fmt: skip
        group = Group(name, found.embeddings, found.people)
        if len(found.people) > MANY:
            group = group.only(name, np.random.default_rng(0).permutation(len(found.people))[:MANY])
        rows.append(line(group, before, shipped))
        rows += [line(part, before, shipped)
                 for part in labelled(folder, name, group, found.photos)
                 if len(part.people) * (len(part.people) - 1) // 2 >= FEWEST[0]]  # fmt: skip
    for archive, listed in zip(given.faces, given.table, strict=True):
        rows += [line(group, before, shipped) for group in held_out(archive, listed, given.model)]
    publish(
        f"fairness-{loaded.description.key}",
        f"Counted ÷ stated false accepts, model {loaded.description.key}",
        table(TITLES, rows),
        "python benchmarks/fairness.py MODEL --fit CELEBA/identity.txt --set NAME=FOLDER …",
        PACKAGES,
    )


if __name__ == "__main__":
    main()
