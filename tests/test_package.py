from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from pathlib import Path

import pytest
from helpers import loaded_by

import face2vec
from face2vec import errors

ROOT = Path(face2vec.__file__).parent
PROJECT = ROOT.parent
HEAVY = (
    *("numpy", "PIL", "pillow_heif", "faiss", "onnx", "onnxruntime", "openvino", "h5py", "mtcnn"),
    *("tensorflow", "keras", "pandas", "matplotlib", "tqdm", "click", "sqlite3"),
)
# A module imports only what stands in a line above its own; results stands beside the way from
# photo to match, and shows what comes out of it.
ORDER = (
    ("cli", "detection", "encoding", "gallery", "index", "ingest", "photos", "report", "runtime"),
    ("errors", "files", "report.html", "photos.damage"),
    ("types", "calibration", "pose", "ingest.embedding_map", "photos.formats"),
    ("photos.decode", "photos.discover", "runtime.select", "detection.graphs"),
    ("detection.mtcnn", "models.description"),
    ("models.catalogue", "models.download", "models.facenet"),
    ("models.store",),
    ("models",),
    ("encoding.align", "encoding.embed"),
    ("encoding.extract",),
    ("encoding.workers",),
    ("encoding.encoder",),
    ("gallery.connection", "gallery.rows"),
    ("gallery.audit", "gallery.people"),
    ("gallery.reader",),
    ("gallery.staging",),
    ("gallery.writer",),
    ("gallery.gallery",),
    ("ingest.build", "index.policy", "report.matches"),
    ("index.file",),
    ("index.flat",),
    ("index.hnsw", "index.ivf"),
    ("index.face_index",),
    ("index.sync",),
    ("people", "people.clustering", "people.traces", "people.page", "people.identify"),
    ("people.assign", "ingest.reembed"),
    ("engine_opened",),
    ("engine_people",),
    ("engine_upgrade",),
    ("engine",),
    ("",),  # the package itself
    ("samples.model",),
    ("samples.drawing",),
    ("samples.camera",),
    ("samples.people",),
    ("samples",),
    ("evaluation", "evaluation.encoders.seam", "evaluation.metrics"),
    ("evaluation.encoders.deepface", "evaluation.encoders.keras_facenet"),
    ("evaluation.encoders.own",),
    ("evaluation.encoders",),
    ("evaluation.sets",),
    ("evaluation.fitting", "evaluation.identification", "evaluation.measuring"),
    ("evaluation.videos",),
    ("evaluation.report",),
    ("evaluation.comparison",),
    ("lab", "lab.portraits", "lab.pose", "lab.rates"),
    ("lab.drawn", "lab.photographic", "lab.subjects", "lab.slices"),
    ("lab.catalogue", "lab.tables"),
    ("lab.robustness",),
    ("lab.findings",),
    ("lab.plots",),
    ("lab.report",),
    ("training", "training.augment", "training.curves", "training.faces"),
    ("training.batches", "training.layers", "training.onnx_graph"),
    ("training.inception", "training.inception_resnet", "training.losses", "training.mini"),
    ("training.export", "training.muon", "training.networks", "training.objectives"),
    ("training.trainer",),
    ("training.stages",),
    ("training.recipe",),
    ("lab.studies",),
    ("cli.common",),
    ("cli.compare", "cli.evaluate", "cli.people", "cli.train", "cli.upgrade", "cli.verify", "demo"),
    ("cli.lab",),
    ("cli.main",),
    ("__main__",),
)
LEVEL = {module: level for level, modules in enumerate(ORDER) for module in modules}


def modules() -> dict[str, Path]:
    """Path of each module by its name below face2vec."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_by(path: Path) -> set[str]:
    """Names below face2vec of the modules that a file imports, at any place in it."""
    known = modules()
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("face2vec.") in known
                names.add(inner if is_module else node.module)
    return {
        name.removeprefix("face2vec").removeprefix(".")
        for name in names
        if name.partition(".")[0] == "face2vec"
    }


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import face2vec")
    assert "face2vec" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["Face", "Match", "Photo"])
def test_records_load_nothing_heavy(name: str) -> None:
    assert loaded_by(f"import face2vec; face2vec.{name}").isdisjoint(HEAVY)


def test_searching_loads_no_tensorflow_and_no_detector_package() -> None:
    loaded = loaded_by(
        "import face2vec.engine, face2vec.encoding.encoder, face2vec.index.sync, face2vec.cli.main"
    )
    unwanted = {"tensorflow", "keras", "torch", "mtcnn", "cv2", "h5py", "matplotlib", "pandas"}
    assert loaded.isdisjoint(unwanted)


def test_all_is_sorted_and_complete() -> None:
    constants = [name for name in face2vec.__all__ if name.isupper()]
    classes = [name for name in face2vec.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in face2vec.__all__ if name[0].islower()]
    assert face2vec.__all__ == sorted(constants) + sorted(classes) + sorted(functions)
    public_errors = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.Face2VecError)
    }
    assert set(face2vec.__all__) == set(face2vec._HOME) | public_errors
    assert len(set(face2vec.__all__)) == len(face2vec.__all__)


@pytest.mark.parametrize("name", face2vec.__all__)
def test_every_public_name_is_there_and_described(name: str) -> None:
    value = getattr(face2vec, name)
    assert name in dir(face2vec)
    if name in face2vec._HOME:
        home = importlib.import_module(f"face2vec.{face2vec._HOME[name]}")
        assert getattr(home, name) is value
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
        assert value.__module__.startswith("face2vec.")
        doc = value.__doc__ or ""
        assert doc.strip()
        assert not doc.startswith(f"{name}(")  # what a dataclass writes for itself
        for inner, member in vars(value).items():
            is_public = not inner.startswith("_")
            if is_public and inspect.isfunction(member):
                assert member.__doc__, f"{name}.{inner} has no docstring"
    else:
        assert isinstance(value, str)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Embedder'"):
        _ = face2vec.Embedder


def test_home_names_the_same_modules_as_the_hints_for_type_checkers() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    hints = {}
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                assert line.module is not None
                for alias in line.names:
                    hints[alias.name] = line.module.removeprefix("face2vec.")
    assert hints == face2vec._HOME


def test_version_is_that_of_setup_and_the_newest_in_the_changelog() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", changelog, re.MULTILINE)
    versions = [tuple(map(int, version.split("."))) for version, _ in released]
    dates = [date for _, date in released]
    assert versions == sorted(versions, reverse=True)
    assert dates == sorted(dates, reverse=True)
    assert len(released) == len(re.findall(r"^## ", changelog, re.MULTILINE))
    assert released[0][0] == face2vec.__version__
    setup = (PROJECT / "setup.py").read_text(encoding="utf-8")
    assert re.findall(r'\bversion="([^"]*)"', setup) == [face2vec.__version__]


# --- errors ---------------------------------------------------------------------------------


def error_tree() -> list[tuple[int, str]]:
    """(depth, name) of each error, as the classes say; the order is that of the module."""
    tree = []

    def visit(kind: type[Exception], depth: int) -> None:
        tree.append((depth, kind.__name__))
        for below in kind.__subclasses__():
            if below.__module__ == "face2vec.errors":
                visit(below, depth + 1)

    visit(errors.Face2VecError, 0)
    return tree


def test_error_tree_is_drawn_as_it_is() -> None:
    drawn = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+Error)\b", line)
        if found:
            drawn.append((len(found[1]) // 4, found[2]))
    assert drawn == error_tree()


def test_errors_can_be_caught_as_what_they_also_are() -> None:
    said = re.findall(r"(\w+Error) .*\(also an? (\w+)\)", errors.__doc__ or "")
    assert said == [("SettingsError", "ValueError"), ("MissingExtraError", "ImportError")]
    for name, also in said:
        assert issubclass(getattr(errors, name), getattr(builtins, also))


# --- order ----------------------------------------------------------------------------------


def test_every_module_has_its_place_in_the_order() -> None:
    assert set(modules()) == set(LEVEL)


@pytest.mark.parametrize("module", sorted(modules()))
def test_modules_import_one_way(module: str) -> None:
    names = imported_by(modules()[module])
    upwards = {name for name in names if LEVEL[name] >= LEVEL[module]}
    assert upwards == set()


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_module_says_what_it_is(module: str) -> None:
    doc = ast.get_docstring(ast.parse(modules()[module].read_text(encoding="utf-8")))
    assert doc
    assert len(doc.splitlines()[0]) <= 100
