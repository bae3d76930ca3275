"""The three-line API: a gallery, what fills it and what searches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from face2vec.calibration import USUAL_FAR, Calibration, Verification, verified
from face2vec.engine_opened import Query, embedding_of, own_record, unit_rows
from face2vec.engine_people import Who
from face2vec.engine_upgrade import UpgradeEngine
from face2vec.errors import (
    GalleryError,
    PhotoError,
    SettingsError,
)
from face2vec.gallery.connection import size_of
from face2vec.gallery.gallery import Gallery, Removed, Snapshot, StoredFace, StoredFaces
from face2vec.gallery.staging import begun
from face2vec.index.sync import nearest_faces
from face2vec.photos.decode import PhotoLike
from face2vec.photos.discover import Source, find_photos, paths_of
from face2vec.report.matches import Found, Matches
from face2vec.runtime.select import choose_runtime, detector_runtime
from face2vec.types import Face, Match, Photo, model_digest

if TYPE_CHECKING:
    from face2vec.ingest.build import BuildSummary
    from face2vec.pose import By

LAYOUTS_AT_ONCE = 256  # of which it is looked up whether they are similar enough


class Face2Vec(UpgradeEngine):
    """Face retrieval over a photo collection.

    Without a gallery it encodes photos. With one it also adds photos to it and
    searches it; a gallery that does not exist yet is made by the first `add`.
    Use it as a context manager, or call `close`.

    Args:
        gallery: folder of the gallery.
        model: a key of the catalogue or the path of a model file; by default
            the model that the gallery was made with, and for a new gallery
            ``face2vec.DEFAULT_MODEL``.
        detector: what counts as a face; by default as the gallery was made.
        runtime: "auto", "onnxruntime", "openvino" or "cuda".
        threads: processor threads to use; None for all cores.
        index: kind of index: "auto", "exact", "hnsw", "ivf" or "ivfpq".
        hold_index: keep the index in this process's memory, for many searches among many
            faces. Otherwise it is left in its file, where it opens at once and is shared
            with other processes.
        max_pixels: photos with more pixels are not decoded.

    Raises:
        GalleryMismatchError: the gallery was made with another model or detector.
        GalleryError: the gallery cannot be opened.
        SettingsError: a setting out of its range.
    """

    # Building

    def add(
        self,
        *sources: Source | Iterable[Source],
        progress: bool = False,
        report: Callable[[PhotoError], None] | None = None,
    ) -> BuildSummary:
        """Add every face of every new or changed photo.

        A photo that has not changed costs a look at its size and time. What is
        done is kept whatever happens: run it again to go on. Ctrl-C ends it
        with ``interrupted`` set.

        Args:
            sources: folders, files, glob patterns, ``@list.txt``, or ``-`` for
                paths on standard input; one by one or in lists.
            progress: show a bar on standard error.
            report: called with each photo that cannot be read.

        Raises:
            SettingsError: a source is no path, or does not exist.
            GalleryLockedError: another process is adding to this gallery.
            GalleryError: the gallery cannot be written.
            ModelError: the model cannot be had or loaded.
        """
        from tqdm import tqdm

        from face2vec.ingest.build import Build

        started = time.monotonic()
        paths = paths_of(sources)
        found = find_photos(paths)
        gallery = self._writable()
        # Standard input can be read once only, so a bar over it has no end.
        total = sum(1 for _ in find_photos(paths)) if progress and "-" not in paths else None
        interrupted = False
        with (
            gallery.writing(),
            tqdm(total=total, unit="photo", disable=not progress, dynamic_ncols=True) as bar,
        ):
            if self._wanted_model is not None:
                self._note_origin(gallery, self._load_model())
            build = Build(gallery, lambda: self.encoder, report, bar)
            try:
                build.run(found)
            except KeyboardInterrupt:
                interrupted = True
            self._index_of(gallery).save()
        return build.summary(time.monotonic() - started, interrupted)

    # Searching

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        min_similarity: float | None = None,
        far: float | None = None,
    ) -> list[Found]:
        """The k most similar gallery faces, for each face of the query.

        Args:
            query: a photo (path, bytes, PIL image, RGB uint8 array, `Photo`):
                one entry for each face in it; a list of photos of one person:
                one entry, for the largest face of each photo taken together; a
                `Face` (one that is in the gallery is not returned itself); an
                embedding (d,), one entry; or embeddings (n, d), n entries.
            k: most matches an entry, at least 1.
            min_similarity: leave out matches below it, −1…1.
            far: leave out matches that a larger share of pairs of two people reaches, 0…1.

        Returns:
            One `Found` an entry, matches most similar first; [] for a photo without a face.

        Raises:
            GalleryNotFoundError: there is no gallery.
            PhotoError: the photo cannot be read.
            NoFaceError: none of several photos has a face.
            SettingsError: k below 1, or an embedding of another dimension.
            GalleryMismatchError: the face was encoded with another model.
            CalibrationError: ``far`` is given, and what similarities mean is not known for
                the gallery's model, or not at so low a rate.
        """
        gallery = self._readable()
        if k < 1:
            raise SettingsError(f"k must be at least 1, not {k}")
        least = self._least(min_similarity, far)
        name, faces, embeddings, source = self._query(query, gallery)
        if not len(embeddings):
            return []
        itself = own_record(query, gallery) if isinstance(query, Face) else None
        with gallery.snapshot(mapped=True) as now:
            with self._index_of(gallery).at(now) as index:
                wanted = k if itself is None else k + 1
                similarities, ids = nearest_faces(index, now, embeddings, wanted)
                among = len(index)
            if itself is not None or least is not None:
                lowest = -1.0 if least is None else least
                for n, row in enumerate(similarities):
                    keep = row >= lowest
                    if itself is not None:
                        keep &= ids[n] != itself.id
                    similarities[n], ids[n] = row[keep][:k], ids[n][keep][:k]
            stored = now.faces(sorted({i for row in ids for i in row.tolist()}))
        meaning = self._calibrated(gallery)
        return [
            Found(name, face, _matches(stored, row, row_ids, meaning, among), source)
            for face, row, row_ids in zip(faces, similarities, ids, strict=True)
        ]

    def search_layout(
        self,
        query: PhotoLike | Photo | Face,
        k: int = 10,
        *,
        by: By = "pose",
        person: Who | None = None,
        min_similarity: float | None = None,
        far: float | None = None,
    ) -> list[Found]:
        """The k gallery faces whose landmarks lie most as the query's, whoever they are.

        Args:
            query: a photo: one entry for each face in it; or a face of this gallery, which is
                not returned itself.
            k: most matches an entry, at least 1.
            by: ``"pose"`` for faces that are turned alike, wherever and however large;
                ``"framing"`` for faces at the same place in their photos.
            person: only faces of somebody, as in "Ada, turned like this".
            min_similarity: only faces at least so similar to the query's, −1…1.
            far: only faces as similar as so small a share of pairs of two people is, 0…1.

        Returns:
            One `Found` an entry, least distance first (`Match.layout`, see `face2vec.pose`);
            ``similarity`` is that of the embeddings, as in a search.

        Raises:
            GalleryNotFoundError: there is no gallery.
            PhotoError: the photo cannot be read.
            SettingsError: k below 1, another ``by``, or a face that is not in the gallery.
            CalibrationError: ``far`` is given, and what similarities mean is not known.
        """
        from face2vec.pose import distances, layouts

        gallery = self._readable()
        if k < 1:
            raise SettingsError(f"k must be at least 1, not {k}")
        least = self._least(min_similarity, far)
        asked_of = query if isinstance(query, Face) else self._open(query)
        if isinstance(asked_of, Face) and asked_of.embedding is not None:
            embedding_of(asked_of, gallery.model_digest)
        if isinstance(asked_of, Face) and own_record(asked_of, gallery) is None:
            raise SettingsError("search for the layout of a photo, or of a gallery's face")
        name, faces, embeddings, source = self._query(asked_of, gallery)
        with gallery.snapshot() as now:
            ids, points, sizes = now.landmarks()
            if isinstance(asked_of, Face):
                own = ids == asked_of.id
                asked = layouts(points[own], sizes[own], by)
                keep = ~own
            else:
                asked = layouts([face.landmarks for face in faces if face is not None],
                                [(asked_of.width, asked_of.height)] * len(faces), by)  # fmt: skip
                keep = np.ones(len(ids), bool)
            if person is not None:
                keep &= np.isin(ids, self.person(person).faces)
            ids, known = ids[keep], layouts(points[keep], sizes[keep], by)
            found = []
            for face, embedding, one in zip(faces, embeddings, asked, strict=True):
                apart = distances(one, known)
                order = np.argsort(apart, kind="stable")
                nearest = _similar_enough(now, ids[order], embedding, k, least)
                found.append((face, [(float(apart[order[n]]), i, s) for n, i, s in nearest]))
            everyone = {i for _, best in found for _, i, _ in best}
            stored = now.faces(sorted(everyone))
        records = {one.face.id: one for one in stored.records()}
        return [
            Found(name, face, Matches(_laid_out(records, best)), source) for face, best in found
        ]

    def _least(self, min_similarity: float | None, far: float | None) -> float | None:
        """The higher of a similarity and the one that a false accept rate asks for."""
        if far is None:
            return min_similarity
        least = self.calibration.threshold(far)
        return least if min_similarity is None else max(least, min_similarity)

    # Verifying

    def calibrate(self, calibration: Calibration) -> None:
        """Keep with the gallery what similarities mean for it.

        Args:
            calibration: fitted with the gallery's own model, see ``face2vec calibrate``.

        Raises:
            GalleryMismatchError: it is of another model.
            GalleryLockedError: another process is writing to the gallery.
        """
        gallery = self._readable()
        with gallery.writing():
            gallery.calibrate(calibration)
        self._calibration = None

    def verify(
        self,
        first: PhotoLike | Photo | Face | NDArray[np.float32],
        second: PhotoLike | Photo | Face | NDArray[np.float32],
        *,
        far: float = USUAL_FAR,
    ) -> Verification:
        """Whether two faces are of one person, and how sure that is.

        Args:
            first: a photo, of which the largest face is taken; a `Face`; an embedding (d,); or
                embeddings (n, d), for n answers at once as arrays.
            second: the same of the other; of embeddings as many.
            far: share of pairs of two people that may be taken for one, 0…1.

        Raises:
            NoFaceError: no face in a photo.
            PhotoError: a photo cannot be read.
            SettingsError: embeddings of different numbers or dimensions.
            GalleryMismatchError: a face was encoded with another model.
            CalibrationError: what similarities mean is not known for the model, or not at
                so low a rate.
        """
        calibration = self.calibration
        one, other = self._side(first), self._side(second)
        if one.shape != other.shape:
            raise SettingsError(
                f"embeddings of shape {one.shape} and {other.shape} cannot be verified pair by pair"
            )
        return verified(calibration, np.sum(one * other, axis=-1, dtype=np.float64), far)

    def _side(self, query: PhotoLike | Photo | Face | NDArray[np.float32]) -> NDArray[np.float32]:
        """Embedding (d,), or embeddings (n, d), of one side of a comparison."""
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            rows = unit_rows(query, self._load_model().description.dimension)
            return rows if query.ndim == 2 else rows[0]
        if isinstance(query, Face):
            if query.embedding is None or self._gallery is not None:
                return self._embedding_of(query, self._readable())
            return embedding_of(query, model_digest(self._load_model().as_fingerprint()))
        if self._gallery is not None:
            self._check_model(self._gallery, self._load_model())
        embedding: NDArray[np.float32] = self._one_person([cast("PhotoLike | Photo", query)])[2][0]
        return embedding

    # Keeping

    def remove(self, *photos: Source | Iterable[Source]) -> Removed:
        """Take photos out of the gallery, with their faces where no copy is left.

        Args:
            photos: paths of photos, or of folders for all photos under them; one by one or in
                lists.

        Raises:
            GalleryError: none of them is in the gallery, or it cannot be written.
        """
        paths = paths_of(photos)
        removed = self._drop(lambda gallery: gallery.remove(paths))
        if not removed.photos:
            raise GalleryError(
                f"none of these is in the gallery {self._folder}: {', '.join(paths)}. "
                "Name photos by the paths that a search shows"
            )
        return removed

    def prune(self, force: bool = False) -> Removed:
        """Drop the photos whose files no longer exist.

        Args:
            force: also where a whole folder that photos came from is missing, or one that
                photos were in is empty.

        Raises:
            GalleryError: there is such a folder, or the gallery cannot be written.
        """
        return self._drop(lambda gallery: gallery.prune(force))

    def _drop(self, drop: Callable[[Gallery], Removed]) -> Removed:
        gallery = self._readable()
        with gallery.writing():
            removed = drop(gallery)
            if removed.faces:
                self._index_of(gallery).save()
        return removed

    def rebuild(self) -> None:
        """Build the index again from the gallery's embeddings."""
        gallery = self._readable()
        with gallery.writing():
            self._index_of(gallery).rebuild()

    def check(self) -> list[str]:
        """Read the whole gallery and say in words what is wrong; [] when it is sound."""
        gallery = self._readable()
        return [*gallery.check(), *self._index_of(gallery).problems()]

    def info(self) -> dict[str, Any]:
        """What there is, as JSON-able values: counts, model, detector, runtime, index, sizes."""
        gallery = self._readable()
        index = self._index_of(gallery)
        with gallery.snapshot() as now, index.at(now) as current:
            kind = current.kind
        runtime = choose_runtime(self._runtime_wish, self._threads)
        return {
            "gallery": str(gallery.folder),
            **gallery.counts()._asdict(),
            "mapped": len(gallery.mapped()),
            "upgrade_begun": begun(gallery.folder),
            "made_with": gallery.fingerprint,
            "dimension": gallery.dimension,
            "index": kind,
            "bytes": sum(map(size_of, gallery.folder.iterdir())),
            "index_bytes": index.path.stat().st_size if index.path.exists() else 0,
            "runtime": runtime.describe(),
            "detector_runtime": detector_runtime(runtime).describe(),
        }


def _matches(
    stored: StoredFaces,
    similarities: NDArray[np.float32],
    ids: NDArray[np.int64],
    meaning: Calibration | None,
    among: int,
) -> Matches:
    """The faces that were found; their records are made when they are first looked at."""
    some = stored.of(ids.tolist())

    def ranked() -> Iterator[Match]:
        cosines = np.clip(similarities.astype(np.float64), -1.0, 1.0)  # maybe off by a last bit
        columns = [cosines.tolist()]
        if meaning is not None:
            columns.append(meaning.probability(cosines, 1 / max(among, 2)).tolist())
            columns.append(((among - 1) * meaning.far(cosines)).tolist())
        by_id = dict(zip(ids.tolist(), zip(*columns, strict=True), strict=True))
        for rank, (face, photo, copies) in enumerate(some, 1):
            similarity, *sure = by_id[face.id]
            yield Match(rank, similarity, face, photo, copies, *sure)

    return Matches.later(len(some), ranked)


def _similar_enough(
    now: Snapshot,
    ids: NDArray[np.int64],
    embedding: NDArray[np.float32],
    most: int,
    least: float | None,
) -> list[tuple[int, int, float]]:
    """(place, id, similarity) of the first faces that are at least so similar."""
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(ids), LAYOUTS_AT_ONCE):
        some = ids[start : start + LAYOUTS_AT_ONCE]
        cosines = now.embeddings(some) @ embedding
        keep = np.flatnonzero(cosines >= (-2.0 if least is None else least))
        found += [(start + int(n), int(some[n]), float(cosines[n])) for n in keep]
        if len(found) >= most:
            break
    return found[:most]


def _laid_out(
    records: Mapping[int | None, StoredFace], best: Iterable[tuple[float, int, float]]
) -> Iterator[Match]:
    for rank, (apart, i, cosine) in enumerate(best, 1):
        one = records[i]
        yield Match(rank, min(max(cosine, -1.0), 1.0), one.face, one.photo, one.copies,
                    layout=apart)  # fmt: skip
