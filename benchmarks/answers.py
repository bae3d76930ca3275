"""What the commands print on real photos, for pages of the documentation.

    python benchmarks/answers.py LFW_FOLDER

LFW is indexed, and its faces are grouped, in a new gallery. The people of the page are two sisters.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from common import arguments, publish

PACKAGES = ("face2vec", "onnxruntime", "openvino", "numpy")
COMMAND = "python benchmarks/answers.py LFW_FOLDER"
GALLERY, COPY = "indexes/lfw", "indexes/lfw-mini"
ONE, OTHER = "Serena_Williams", "Venus_Williams"
NAME = "Serena Williams"


class Shell:
    """Runs commands in a folder where LFW is a link, and keeps what they print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def output(self, command: str) -> str:
        """What one command prints; its exit code may be any but that of an error."""
        words = [sys.executable, "-m", "face2vec", *shlex.split(command)[1:]]
        done = subprocess.run(
            words,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode > 1:
            raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}")
        real = str((self.folder / "LFW").resolve())
        return done.stdout.replace(real, "LFW").replace(f"{self.folder}/", "").rstrip()

    def publish(self, name: str, title: str, *commands: str) -> None:
        """Run commands and write what they print to the pages."""
        shown = [f"$ {command}\n{self.output(command)}".rstrip() for command in commands]
        text = "\n\n".join(shown)
        publish(name, title, f"```text\n{text}\n```", COMMAND, PACKAGES)

    def person_in(self, photo: str) -> int:
        """Number of the person that a photo shows, who is alone in it."""
        for line in self.output(f"face2vec people {GALLERY} --json").splitlines():
            person = json.loads(line)
            if any(face["photo"].endswith(photo) for face in person["faces"]):
                return int(person["person"])
        raise SystemExit(f"nobody was found in {photo}")


def photo(of: str, number: int) -> str:
    return f"LFW/{of}/{of}_{number:04d}.jpg"


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shell = Shell(Path(scratch).resolve())
        (shell.folder / "LFW").symlink_to(given.folder.resolve())
        photo_table = [sys.executable, str(Path(__file__).with_name("photo_table.py"))]
        subprocess.run([*photo_table, "LFW", "lfw.csv"], cwd=shell.folder, check=True)
        shell.publish(
            "slices-lfw", "Slices", "face2vec lab slices lfw.csv --people 2000 --photos 5 -q"
        )
        shell.output(f"face2vec index LFW --gallery {GALLERY} -q")
        shell.publish("calibrate-lfw", "Rates in LFW", f"face2vec calibrate {GALLERY}")
        first, second = photo(ONE, 1), photo(ONE, 3)
        shell.publish(
            "answers-verify",
            "Two photos of one person, then one photo of each sister",
            f"face2vec verify {first} {second} --gallery {GALLERY}",
            f"face2vec verify {first} {photo(OTHER, 2)} --gallery {GALLERY}",
        )
        shell.publish(
            "answers-search",
            "A search with the same photo",
            f"face2vec search {GALLERY} {first} -k 10",
        )
        shell.output(f"face2vec people {GALLERY}")
        shell.output(f'face2vec name {GALLERY} {shell.person_in(first)} "{NAME}"')
        shell.publish(
            "answers-pose",
            "A search by pose, first among all faces, then among those of one person",
            f"face2vec search {GALLERY} {first} -k 4 --by pose",
            f'face2vec search {GALLERY} {first} -k 4 --by pose --person "{NAME}"',
        )
        shell.publish(
            "answers-identify",
            "Two photos, one of each sister; only the first has a name",
            f"face2vec identify {GALLERY} {photo(ONE, 32)} {photo(OTHER, 6)}",
        )
        shell.output(f"face2vec copy {GALLERY} {COPY}")
        shell.publish(
            "answers-upgrade",
            "A copy of the gallery is changed to another model, with an embedding map",
            f"face2vec upgrade {COPY} --model mini --map -q",
            f"face2vec search {COPY} {first} -k 4",
        )
        shell.publish(
            "answers-forget",
            "The person is forgotten",
            f'face2vec forget {GALLERY} "{NAME}" --yes',
            f"face2vec search {GALLERY} {first} -k 2",
            f"face2vec check {GALLERY}",
        )


if __name__ == "__main__":
    main()
