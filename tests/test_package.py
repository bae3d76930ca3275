from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

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
# From the bottom to the top: a package, or a module beside the packages, imports only what stands
# before it.
ORDER = (
    *(
        "errors",
        "forks",
        "files",
        "stored",
        "products",
        "fingerprint",
        "types",
        "arguments",
        "crowding",
        "cohort",
        "tail",
    ),
    *("calibration", "pose", "runtime", "photos", "detection", "models", "encoding", "gallery"),
    *(
        "index",
        "ingest",
        "reliability",
        "report",
        "exchange",
        "people",
        "cluster",
        "session",
        "query",
        "search",
        "engine_people",
        "engine",
    ),
    *("client", "face2vec", "samples", "evaluation", "training", "lab", "demo", "watch", "server"),
    *("mcp", "cli", "__main__"),
)


def modules() -> dict[str, Path]:
    """Path of each module by its name below face2vec."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_runtimes_are_imported_with_their_telemetry_off() -> None:
    by_hand = re.compile(r"^ *(import|from) (onnxruntime|openvino)\b", re.M)
    found = [
        path.name
        for folder in ("face2vec", "tests", "benchmarks", "scripts", "training")
        for path in (PROJECT / folder).rglob("*.py")
        if by_hand.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


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


def test_version_is_in_one_place_and_the_newest_in_the_changelog() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", changelog, re.MULTILINE)
    versions = [tuple(map(int, version.split("."))) for version, _ in released]
    dates = [date for _, date in released]
    assert versions == sorted(versions, reverse=True)
    assert dates == sorted(dates, reverse=True)
    assert len(released) == len(re.findall(r"^## ", changelog, re.MULTILINE))
    assert released[0][0] == face2vec.__version__
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    dynamic = settings["tool"]["setuptools"]["dynamic"]
    assert dynamic["version"] == {"attr": "face2vec.__version__"}
    assert "version" in settings["project"]["dynamic"]
    assert "version" not in settings["project"]
    for file in ("pyproject.toml", "setup.py"):
        assert face2vec.__version__ not in re.findall(
            r'"(\d+\.\d+\.\d+)"', (PROJECT / file).read_text(encoding="utf-8")
        )


# --- what is declared -----------------------------------------------------------------------

DISTRIBUTIONS = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "pillow_jxl": "pillow-jxl-plugin",
    "prometheus_client": "prometheus-client",
}
"""Where the name to import is not the name to install but for case, "-" and "_"."""
EXTRAS_OF = {
    "": "",
    "cluster": "cluster",
    "evaluation": "plot",
    "evaluation.encoders.deepface": "deepface",
    "evaluation.encoders.keras_facenet": "keras",
    "evaluation.videos": "video",
    "photos.video": "video",
    "exchange": "export",
    "exchange.xmp_tree": "xmp",
    "lab": "plot",
    "mcp": "mcp",
    "people": "people",
    "photos.jxl": "jxl",
    "photos.objects": "s3",
    "photos.raw": "raw",
    "client": "server",
    "report": "plot",
    "runtime": "openvino",
    "server": "server",
    "training": "train",
    "training.faces": "tfds",
    "training.muon": "torch",
    "training.on_torch": "torch",
    "watch": "watch",
}
"""The extra whose packages a module or a package of modules may import beside the usual ones."""


def declared() -> dict[str, set[str]]:
    """Names of the distributions by extra, "" for what is always installed, all in setup.py."""
    tree = ast.parse((PROJECT / "setup.py").read_text(encoding="utf-8"))
    parts = [node for node in tree.body if not isinstance(node, ast.Expr | ast.ImportFrom)]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(parts, []), "setup.py", "exec"), names)
    lists = {"": names["INSTALL"], **names["EXTRAS"]}

    def named(extra: str) -> set[str]:
        found = set()
        for line in lists[extra]:
            inner = re.match(r"face2vec\[(.*)\]", line)
            if inner:
                found.update(*(named(name) for name in inner[1].split(",")))
            else:
                found.add(re.match(r"[\w.-]+", line)[0].lower().replace("_", "-"))
        return found

    return {extra: named(extra) for extra in lists}


def foreign_imports(path: Path) -> set[str]:
    """Names of the packages of others that a file imports, by statement or by their names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            (name,) = node.args
            if isinstance(name, ast.Constant):
                found.add(name.value)
    packages = {name.partition(".")[0] for name in found}
    return packages - set(sys.stdlib_module_names) - {"face2vec"}


@pytest.mark.parametrize("module", sorted(modules()))
def test_what_a_module_imports_is_declared(module: str) -> None:
    known = declared()
    parts = module.split(".")
    extras = {EXTRAS_OF.get(".".join(parts[:length]), "") for length in range(len(parts) + 1)}
    may = set().union(*(known[extra] for extra in extras))
    wanted = {
        DISTRIBUTIONS.get(name, name.lower().replace("_", "-"))
        for name in foreign_imports(modules()[module])
    }
    assert wanted <= may


def test_dependencies_have_bounds_and_reasons() -> None:
    lines = (PROJECT / "setup.py").read_text(encoding="utf-8").splitlines()
    start, end = lines.index("INSTALL = ["), lines.index("]")
    assert end - start > 10
    for line in lines[start + 1 : end]:
        assert re.fullmatch(r' {4}"[\w-]+>=[\d.]+",  # \w.*', line)


def test_metadata_is_complete() -> None:
    metadata = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in ("description", "readme", "license", "authors", "keywords", "classifiers", "urls"):
        assert metadata[name]
    pythons = [c for c in metadata["classifiers"] if re.search(r":: 3\.\d+$", c)]
    oldest = re.fullmatch(r">=3\.(\d+)", metadata["requires-python"])
    assert oldest
    assert pythons[0].endswith(f"3.{oldest[1]}")
    workflow = (PROJECT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert re.findall(r'"(3\.\d+)"', workflow) == [c.rpartition(" ")[2] for c in pythons]


def test_workflow_calls_only_what_is_there() -> None:
    workflow = (PROJECT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    run = re.findall(r"^ +(?:- )?run: (\S+)", workflow, re.MULTILINE)
    assert run
    for program in run:
        assert (PROJECT / program).is_file()


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


def test_errors_can_be_caught_as_their_builtin_bases() -> None:
    said = re.findall(r"(\w+Error) .*\(also an? (\w+)\)", errors.__doc__ or "")
    assert said == [
        ("SettingsError", "ValueError"),
        ("MissingExtraError", "ImportError"),
        ("NotWrittenError", "OSError"),
    ]
    for name, also in said:
        assert issubclass(getattr(errors, name), getattr(builtins, also))


# --- order ----------------------------------------------------------------------------------


def place(module: str) -> int:
    return ORDER.index(module.partition(".")[0] or "face2vec")


@pytest.mark.parametrize("module", sorted(modules()))
def test_packages_import_one_way(module: str) -> None:
    names = imported_by(modules()[module])
    assert {name for name in names if place(name) > place(module)} == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    imports = {module: imported_by(path) - {module} for module, path in modules().items()}
    TopologicalSorter(imports).prepare()  # raises CycleError


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_module_has_a_docstring(module: str) -> None:
    doc = ast.get_docstring(ast.parse(modules()[module].read_text(encoding="utf-8")))
    assert doc
    assert len(doc.splitlines()[0]) <= 100
