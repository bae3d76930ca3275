"""`Face2Vec`: a gallery, what fills it and what searches it, behind one class.

Its methods about people are in `face2vec.engine_people`.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from face2vec import arguments
from face2vec.calibration import USUAL_FAR, Calibration, Verification, verified
from face2vec.cluster.address import MilvusAddress
from face2vec.detection.select import AnyDetector
from face2vec.encoding.quality import outside
from face2vec.engine_people import EnginePeople, Who
from face2vec.errors import GalleryError, GalleryNotFoundError, PhotoError, SettingsError
from face2vec.files import expanded, is_object, is_root
from face2vec.gallery.rows import Removed, called
from face2vec.gallery.staging import abandon
from face2vec.photos.allowed import allow
from face2vec.photos.decode import MAX_PIXELS
from face2vec.photos.discover import PAIRS, FoundPhoto, Source, find_photos, paths_of
from face2vec.photos.extras import VIDEO, kind_by_name
from face2vec.photos.named import named_photos
from face2vec.photos.sources import PhotoLike
from face2vec.query import Query, QueryReader
from face2vec.reliability import LOOKED_AT, Reliability, reliability
from face2vec.report.matches import QueryResult
from face2vec.runtime.select import detector_runtime
from face2vec.search import Searcher
from face2vec.session import Session, place_of
from face2vec.types import STATUSES, Face, Photo, PhotoStatus

if TYPE_CHECKING:
    from face2vec.cluster.copy import Copied
    from face2vec.encoding.encoder import Encoder
    from face2vec.exchange.encoded import EncodedPhoto
    from face2vec.exchange.folders import PeopleExported
    from face2vec.exchange.load import Imported
    from face2vec.exchange.sidecars import XmpExported, XmpImported
    from face2vec.gallery.reader import Snapshot
    from face2vec.gallery.writer import Writer
    from face2vec.ingest.build import BuildSummary
    from face2vec.ingest.enroll import Enrolled
    from face2vec.ingest.progress import Progress
    from face2vec.ingest.reembed import UpgradeSummary
    from face2vec.pose import By

MATES = 1e-3, 1e6
"""Range of the expected number of faces that show a query's person."""
_UPGRADE = (
    "an upgrade to another model",
    "index the photos into another archive with that model",
)


def _limits(min_similarity: float | None, far: float | None) -> tuple[float | None, float | None]:
    """Check the lowest similarity and the highest false accept rate of a search."""
    return (
        arguments.optional_within("min_similarity", min_similarity, -1, 1),
        arguments.optional_within("far", far, 0, 1),
    )


class Face2Vec(EnginePeople):
    """Face retrieval over a photo collection.

    Without a gallery it encodes photos. With one it also adds photos to it and searches it. A
    gallery that does not exist yet is created by the first `add`. Use it as a context manager, or
    call `close`.

    Args:
        gallery: folder of the gallery; or its address in Milvus,
            ``milvus://user:password@host:19530/archive`` (see docs/scale.md).
        model: a key of the catalogue or the path of a model file. The default is the model of the
            gallery, and ``face2vec.DEFAULT_MODEL`` for a new gallery.
        detector: ``"mtcnn"`` or ``"yunet"``, their settings (`DetectorSettings` or
            `YunetSettings`), or any object that implements the `Detector` protocol. The default is
            the detector of the gallery, and MTCNN for a new gallery.
        runtime: "auto", "onnxruntime", "openvino" or "cuda".
        threads: number of processor threads; None for all cores.
        index: kind of index: "auto", "flat" or "pq".
        index_in_memory: keep the index in the memory of this process, for many searches among
            many faces. Otherwise its file is mapped: it opens at once, and processes share it.
        max_pixels: photos with more pixels are refused.
        ray: encode the photos of `add` and `enroll` on a Ray cluster: ``"auto"``, or its
            ``"HOST:PORT"`` (see docs/scale.md).
        hold_index: deprecated name of ``index_in_memory``.

    Raises:
        GalleryMismatchError: the gallery was made with another model or detector.
        GalleryError: the gallery cannot be opened.
        SettingsError: a setting is out of range.
    """

    def __init__(
        self,
        gallery: Source | MilvusAddress | None = None,
        *,
        model: Source | None = None,
        detector: AnyDetector | str | None = None,
        runtime: str = "auto",
        threads: int | None = None,
        index: str = "auto",
        index_in_memory: bool = False,
        max_pixels: int = MAX_PIXELS,
        ray: str | None = None,
        hold_index: bool | None = None,
    ) -> None:
        if hold_index is not None:
            warnings.warn(
                "hold_index is deprecated; use index_in_memory", DeprecationWarning, stacklevel=2
            )
            index_in_memory = hold_index
        if model is not None:
            arguments.path("model", model)
        self._session = Session(
            place_of(gallery),
            model=model,
            detector=arguments.detector(detector),
            runtime=arguments.text("runtime", runtime),
            threads=arguments.optional_whole("threads", threads, 1),
            index=arguments.text("index", index),
            index_in_memory=index_in_memory,
            max_pixels=arguments.whole("max_pixels", max_pixels, 1),
            ray=None if ray is None else arguments.text("ray", ray),
        )
        self._queries = QueryReader(self._session)
        self._searcher = Searcher(self._session, self._queries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Face2Vec({str(self._session.folder or '')!r})"

    def close(self) -> None:
        """Close the gallery and stop the worker threads; using the object again opens it again."""
        self._session.close()

    @property
    def has_gallery(self) -> bool:
        """Whether there is a gallery in the folder."""
        with contextlib.suppress(GalleryNotFoundError, SettingsError):
            self._session.gallery()
        return self._session.has_gallery

    def snapshot(self) -> Snapshot:
        """One state of the gallery to read, for a ``with`` block and one thread.

        Raises:
            GalleryNotFoundError: there is no gallery.
        """
        return self._session.gallery().read()

    def reopen(self) -> None:
        """Open the gallery again after another `Face2Vec` has upgraded it to another model.

        Raises:
            GalleryError: the gallery cannot be opened.
        """
        self._session.reopen()

    @property
    def detector(self) -> AnyDetector:
        """What finds faces: settings of MTCNN, or the detector that was given.

        Raises:
            GalleryMismatchError: the gallery's detector is not part of face2vec.
        """
        return self._session.detector()

    @property
    def encoder(self) -> Encoder:
        """The detector and the networks, loaded at first use.

        Raises:
            ModelError: the model cannot be found or loaded.
        """
        return self._session.encoder()

    # Encoding

    def encode(self, photo: PhotoLike | Photo) -> list[Face]:
        """Faces of one photo with their embeddings, most confident first; [] if there are none.

        Args:
            photo: a path, bytes, an open file or stream, a PIL image, an RGB uint8 array
                (height, width, 3) or a `Photo`. An array of OpenCV is BGR:
                ``open_photo(array, bgr=True)``.

        Raises:
            PhotoError: the photo cannot be read.
            SettingsError: it is none of these.
            ModelError: the model cannot be found or loaded.
        """
        return self.encoder.encode(self._queries.open(photo))

    def bulk_encode(
        self,
        photos: Iterable[PhotoLike | Photo],
        *,
        on_error: Callable[[PhotoError], None] | None = None,
    ) -> Iterator[list[Face]]:
        """Faces of many photos, one list per photo, in order; later photos are read ahead.

        Args:
            photos: several of anything that `encode` takes; consumed only as fast as needed. The
                first result comes before the second photo is consumed, and never more photos are
                read ahead than results were taken, up to 16 per thread.
            on_error: called with each photo that cannot be read, for which an empty list is
                yielded. Without it the error is raised.

        Raises:
            PhotoError: a photo cannot be read, and ``on_error`` is not given.
            SettingsError: ``photos`` is one photo, or one of them is no photo.
        """
        photos = arguments.several_photos("photos", photos)
        return self._faces_of_all(photos, arguments.function("on_error", on_error))

    def _faces_of_all(
        self,
        photos: Iterable[PhotoLike | Photo],
        on_error: Callable[[PhotoError], None] | None,
    ) -> Iterator[list[Face]]:
        for encoded in self.encoder.stream(photos, self.encoder.unopened):
            if encoded.error is not None:
                if on_error is None:
                    raise encoded.error
                on_error(encoded.error)
            yield list(encoded.faces)

    def encode_photos(self, *sources: Source | Iterable[Source]) -> Iterator[EncodedPhoto]:
        """Photos and videos of folders, lists and patterns with their faces, as JSON-able records.

        Args:
            sources: as for `add`.

        Raises:
            SettingsError: a source is not a path, or does not exist.
            ModelError: the model cannot be found or loaded.
        """
        from face2vec.exchange.encoded import encoded_photos

        found = find_photos(paths_of(sources))
        return encoded_photos(self.encoder, found)

    # Building

    def add(
        self,
        *sources: Source | Iterable[Source],
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        again: Collection[str] = (),
        only: Collection[str] | None = None,
        pairs: str = PAIRS[0],
        progress: Progress = False,
        report: Callable[[PhotoError], None] | None = None,
    ) -> BuildSummary:
        """Add every face of every new or changed photo, and the people in every video.

        Videos need the extra ``video``. Unchanged photos cost one ``stat`` call. A photo with the
        same size and modification time, but another status change time (ctime), is compared by its
        bytes. Finished work is kept, whatever happens; run it again to continue. Ctrl-C ends it
        with ``interrupted`` set.

        Args:
            sources: folders, files, glob patterns, ``@list.txt``, or ``-`` for paths on standard
                input; one by one or in lists. A folder or file can be in object storage,
                ``s3://bucket/2024``, with the extra ``s3``; this allows face2vec to read there.
            exclude: patterns of files and folders to leave out, as in ``.gitignore``, besides
                those of files ``.face2vecignore`` and what other programs keep beside photos.
            include: patterns of files and folders to take, although a pattern leaves them out.
            again: read photos with these statuses although they are unchanged: some of
                ``"unreadable"``, ``"no-face"``, ``"damaged"`` and ``"indexed"``. Bytes that have
                faces in the gallery keep them.
            only: full paths, links resolved; of the photos found, the others are left alone.
            pairs: of a camera raw file and the JPEG of the same name beside it, ``"jpeg"`` takes
                the JPEG alone, and ``"both"`` both.
            progress: True shows a progress bar on standard error. A function is called with the
                number of photos done and of all (None if not known); if it returns False, the build
                ends as with Ctrl-C.
            report: called with each photo that cannot be read, or could not be and is unchanged.

        Raises:
            SettingsError: a source is not a path, or does not exist, or a status is unknown.
            GalleryLockedError: another process is adding to this gallery.
            GalleryError: the gallery cannot be written.
            ModelError: the model cannot be found or loaded.
        """
        arguments.function("report", report)
        arguments.some_of("again", again, STATUSES)
        arguments.optional_paths("only", only)
        paths = paths_of(sources)
        allow(paths)
        left_out: Counter[str] = Counter()
        unread: Counter[str] = Counter()
        paired: Counter[str] = Counter()
        found = find_photos(
            paths, exclude=exclude, include=include, left_out=left_out, unread=unread,
            pairs=pairs, paired=paired,
        )  # fmt: skip
        # Standard input can be read only once, and millions of objects take long to list; so their
        # progress bars have no total.
        names: Collection[str] | None = None
        if only is not None:
            names, everything = set(only), found
            found = (one for one in everything if f"{one.folder}{os.sep}{one.name}" in names)
        elif progress and "-" not in paths and not any(map(is_object, paths)):
            again_found = find_photos(paths, exclude=exclude, include=include, pairs=pairs)
            names = [one.name for one in again_found]
        total = None if names is None else len(names)
        unit = "file" if any(kind_by_name(name) == VIDEO for name in names or ()) else "photo"
        done = self._build(found, left_out, unread, total, progress, report, again, unit=unit)
        return replace(done, paired=paired.total())

    def _build(
        self,
        found: Iterable[FoundPhoto],
        left_out: Counter[str],
        unread: Counter[str],
        total: int | None,
        progress: Progress,
        report: Callable[[PhotoError], None] | None,
        again: Collection[str] = (),
        *,
        unit: str = "photo",
    ) -> BuildSummary:
        """Add photos that were found; ``left_out`` and ``unread`` are read at the end."""
        from face2vec.ingest.build import Build
        from face2vec.ingest.progress import progress_bar

        started = time.monotonic()
        self._session.gallery_to_add_to()
        interrupted = False
        with (
            self._session.write() as writer,
            progress_bar(progress, total, unit) as bar,
        ):
            if self._session.wanted_model is not None:
                self._session.note_origin(writer, self._session.model())
            build = Build(writer, self._session.workers, report, bar, again)
            try:
                build.run(found)
            except KeyboardInterrupt:
                interrupted = True
            self._session.index().save()
        return build.summary(time.monotonic() - started, interrupted, left_out, unread)

    def enroll(
        self,
        people: Source | Mapping[str, Source | Iterable[Source]],
        *,
        progress: bool = False,
        report: Callable[[PhotoError], None] | None = None,
    ) -> Enrolled:
        """Add photos of people whose names are known, and name their faces.

        The largest sure face of each photo gets the name. A person who has the name gets the
        faces. If nobody has it, the unnamed person with more than half of the faces, and with none
        of another name, gets the name; otherwise a new person. `undo` takes all names back at
        once; the photos stay.

        Args:
            people: a folder with a folder of photos for each person; a CSV file with the columns
                ``name`` and ``photo``; or a mapping of names to photos, or to lists of them.
            progress: show a progress bar on standard error.
            report: called with each photo that cannot be read.

        Raises:
            SettingsError: it is none of these, a name is empty or a number, a photo has two names,
                or there is no photo.
            GalleryLockedError: another process is writing to this gallery.
            GalleryError: the gallery cannot be written.
            ModelError: the model cannot be found or loaded.
        """
        from face2vec.gallery.people import checked_name
        from face2vec.ingest.enroll import Enrolled, choose

        arguments.function("report", report)
        photos = named_photos(people)
        for name in dict(photos):
            checked_name(name)
        found = [photo for _, photo in photos]
        added = self._build(found, Counter(), Counter(), len(found), progress, report)
        if added.interrupted:
            return Enrolled(added=added)
        with self._session.gallery().read() as now:
            choice = choose(photos, now, dict(added.unreadable))
        named = self._enrolled(choice.named)
        return Enrolled(tuple(named), choice.faces, tuple(choice.without), added)

    def photos(
        self, *statuses: str, since: str | None = None, until: str | None = None
    ) -> list[PhotoStatus]:
        """The photos of the gallery, and what became of each.

        Args:
            statuses: some of ``"indexed"``, ``"no-face"``, ``"unreadable"`` and ``"damaged"`` (read
                in part); none for all photos.
            since: only photos taken in or after this year, month or day: ``"2024"``,
                ``"2024-05"`` or ``"2024-05-01"``; photos without a date are left out.
            until: only photos taken in or before this year, month or day.

        Raises:
            GalleryNotFoundError: there is no gallery.
            SettingsError: a status is unknown, or a limit is no date.
        """
        from face2vec.gallery.reader import dated_photos
        from face2vec.photos.dates import period

        arguments.some_of("statuses", statuses, STATUSES)
        for name, value in (("since", since), ("until", until)):
            if value is not None:
                arguments.text(name, value)
        wanted = period(since, until)
        found = (
            PhotoStatus(photo, called(status, reason), reason, taken)
            for photo, status, reason, taken in dated_photos(
                self._session.gallery().read, wanted=wanted
            )
        )
        return [one for one in found if not statuses or one.status in statuses]

    def upgrade(
        self,
        model: Source,
        *,
        with_map: bool = False,
        sample: int | None = None,
        drop_missing: bool = False,
        progress: Progress = False,
    ) -> UpgradeSummary:
        """Change the gallery to another model: embed its faces again, from their photos.

        Until all faces are done the gallery answers as before and can be added to. Then it
        switches to the new model in one step. Faces keep their ids, and people their names and
        faces. Finished work is kept, whatever happens; run it again to continue. Other processes
        that have the gallery open get a `GalleryUpgradedError`, and queries that were encoded with
        the old model a `GalleryMismatchError`.

        Args:
            model: a key of the catalogue or the path of a model file. For the gallery's own model
                its new place is stored.
            with_map: learn an embedding map from the old to the new model on a sample, and switch
                as soon as that is done. Other faces have mapped embeddings until theirs are
                computed; faces whose photos cannot be read keep them.
            sample: how many faces are embedded before the map is learned; None for 2,000.
            drop_missing: remove photos that cannot be read any more. Without it and without a map,
                such photos prevent the switch.
            progress: as for `add`, with faces; ending it early raises KeyboardInterrupt.

        Raises:
            GalleryLockedError: another process is writing to the gallery at the switch.
            GalleryError: the gallery cannot be written.
            ModelError: the model cannot be found or loaded.
            SettingsError: an upgrade to another model is in progress, or the sample is too small.
        """
        from face2vec.encoding.encoder import Encoder
        from face2vec.ingest import reembed
        from face2vec.ingest.progress import progress_bar
        from face2vec.models.store import load_model

        arguments.path("model", model)
        arguments.optional_whole("sample", sample, 1)
        session, gallery = self._session, self._session.gallery()
        index = session.local_index(*_UPGRADE)
        session.check_detector_version()
        target = load_model(model)
        encoder = Encoder(target, session.detector(), session.runtime(), session.max_pixels)
        with gallery.read() as now:
            faces = now.count
        with (
            contextlib.closing(encoder),
            progress_bar(progress, faces, "face") as bar,
        ):
            done = reembed.UpgradeSummary(switched=True)
            if gallery.fingerprint.model.digest == target.fingerprint.digest:
                with session.write() as writer:
                    session.note_origin(writer, target)
            else:
                done = reembed.upgrade(
                    gallery,
                    index,
                    encoder,
                    session.fingerprint_with(target),
                    bar,
                    with_map=with_map,
                    sample=reembed.SAMPLE if sample is None else sample,
                    drop_missing=drop_missing,
                )
                if not done.switched:
                    return done
                gallery = session.reopen()
                index = session.local_index(*_UPGRADE)
            with gallery.read() as now:
                mapped = len(now.mapped())
            if mapped:
                finished = reembed.finish(gallery, index, encoder, bar, drop_missing)
                done = done.then(finished)
        return done

    def abandon_upgrade(self) -> bool:
        """Delete the embeddings of an unfinished upgrade; returns whether there was one.

        Raises:
            GalleryLockedError: another process is writing to the gallery.
        """
        gallery = self._session.gallery()
        self._session.local_index(*_UPGRADE)
        with self._session.write():
            return abandon(gallery.folder)

    # Searching

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        min_similarity: float | None = None,
        far: float | None = None,
        mates: float | None = None,
    ) -> list[QueryResult]:
        """The k most similar gallery faces for each face of the query.

        Args:
            query: a photo (path, bytes, open file, PIL image, RGB uint8 array (height, width, 3),
                `Photo`): one result per face; a list of photos of one person: one result for the
                mean of the largest face of each photo; a `Face`, which is not returned itself if
                it is in the gallery; an embedding float (d,): one result; or embeddings float
                (n, d): n results.
            k: maximum number of matches per result, at least 1.
            min_similarity: leave out matches below this similarity, −1…1.
            far: leave out matches below the threshold for this false accept rate, 0…1.
            mates: number of faces of the gallery that are expected to show the query's person,
                0.001…1,000,000; divided by the number of faces, it is the prior of the
                probabilities. None estimates it from the gallery.

        Returns:
            One `QueryResult` per query face, its matches most similar first; [] for a photo
            without a face.

        Raises:
            GalleryNotFoundError: there is no gallery.
            PhotoError: the photo cannot be read.
            NoFaceError: none of several photos has a face.
            SettingsError: k is below 1, or an embedding has another dimension.
            GalleryMismatchError: the query was encoded with another model.
            CalibrationError: ``far`` is given, and there is no calibration, or it does not reach
                so low a rate.
        """
        k = arguments.whole("k", k, 1)
        mates = arguments.optional_within("mates", mates, *MATES)
        return self._searcher.search(query, k, *_limits(min_similarity, far), mates)

    def search_pose(
        self,
        query: PhotoLike | Photo | Face,
        k: int = 10,
        *,
        by: By = "pose",
        person: Who | None = None,
        min_similarity: float | None = None,
        far: float | None = None,
    ) -> list[QueryResult]:
        """The k gallery faces whose landmarks are most like those of the query, whoever they are.

        Args:
            query: a photo: one result per face; or a face of the gallery, which is not returned
                itself.
            k: maximum number of matches per result, at least 1.
            by: ``"pose"`` for faces turned the same way, at any place and size; ``"framing"`` for
                faces at the same place in their photos.
            person: search only faces of this person, as in "Ada, turned like this".
            min_similarity: leave out faces below this similarity to the query face, −1…1.
            far: leave out faces below the threshold for this false accept rate, 0…1.

        Returns:
            One `QueryResult` per query face, smallest `Match.pose_distance` first;
            ``similarity`` is that of the embeddings.

        Raises:
            GalleryNotFoundError: there is no gallery.
            PhotoError: the photo cannot be read.
            SettingsError: k is below 1, ``by`` is unknown, the query is an embedding, or a face is
                not in the gallery.
            CalibrationError: ``far`` is given, and there is no calibration.
        """
        k = arguments.whole("k", k, 1)
        arguments.no_embedding("query", query)
        limits = _limits(min_similarity, far)
        among = None if person is None else self.person(person).faces
        return self._searcher.search_pose(query, k, by, among, *limits)

    def search_layout(
        self, query: PhotoLike | Photo | Face, k: int = 10, **settings: Any
    ) -> list[QueryResult]:
        """Deprecated name of `search_pose`; it will be removed in the next version."""
        warnings.warn(
            "search_layout is deprecated; use search_pose", DeprecationWarning, stacklevel=2
        )
        return self.search_pose(query, k, **settings)

    # Verifying

    @property
    def calibration(self) -> Calibration:
        """The gallery's own calibration if it has one, otherwise that of the model.

        Raises:
            CalibrationError: neither has one.
        """
        return self._session.calibration()

    def calibrate(self, calibration: Calibration) -> None:
        """Store a calibration in the gallery.

        Args:
            calibration: fitted with the gallery's own model, see ``face2vec calibrate``.

        Raises:
            SettingsError: it is not a `Calibration`.
            GalleryMismatchError: it was fitted with another model.
            GalleryLockedError: another process is writing to the gallery.
        """
        if not isinstance(calibration, Calibration):
            raise arguments.refusal("calibration", calibration, "a Calibration")
        self._session.set_calibration(calibration)

    def reliability(self, *, far: float = USUAL_FAR) -> Reliability:
        """How true a false accept rate is in the gallery, estimated without labels.

        Args:
            far: the false accept rate, 0…1.

        Raises:
            CalibrationError: there is no calibration, it does not reach so low a rate, or the
                gallery has fewer than two faces.
        """
        arguments.within("far", far, 0, 1)
        with self.snapshot() as now:
            around = self._session.known_surroundings(now)
            drawn = now.stored_faces(now.some_ids(LOOKED_AT).tolist())
            return reliability(around.calibration, [one.face for one in drawn], now.count, far)

    def verify(
        self,
        first: PhotoLike | Photo | Face | NDArray[np.float32],
        second: PhotoLike | Photo | Face | NDArray[np.float32],
        *,
        far: float = USUAL_FAR,
    ) -> Verification:
        """Whether two faces show the same person, and with what probability.

        With a gallery, the faces are taken for such as those of the gallery, where strangers may be
        more alike than elsewhere.

        Args:
            first: a photo, whose largest face is used; a `Face`; an embedding float32 (d,); or
                embeddings float32 (n, d) for n answers as arrays.
            second: the other face, likewise; as many embeddings float32 (n, d) as ``first``.
            far: false accept rate of the decision, 0…1.

        Raises:
            NoFaceError: no face in a photo.
            PhotoError: a photo cannot be read.
            SettingsError: the embeddings have different shapes.
            GalleryMismatchError: a face was encoded with another model.
            CalibrationError: there is no calibration, or it does not reach so low a rate.
        """
        arguments.within("far", far, 0, 1)
        calibration = self._calibration_here()
        (one, of_one), (other, of_other) = map(self._queries.side_of, (first, second))
        if one.shape != other.shape:
            raise SettingsError(
                f"embeddings of shape {one.shape} and {other.shape} cannot be verified in pairs; "
                "give equal shapes"
            )
        crowding = (calibration.crowded(one) + calibration.crowded(other)) / 2
        similarity = np.asarray(np.sum(one * other, axis=-1, dtype=np.float64))
        found = verified(calibration, similarity, far, crowding)
        return replace(found, outside=outside(of_one, of_other))

    def _calibration_here(self) -> Calibration:
        """The calibration, with the gallery as its cohort if there is one."""
        if not self.has_gallery:
            return self.calibration
        with self.snapshot() as now:
            return self._session.known_surroundings(now).calibration

    # Exchanging

    def export(self, path: Source) -> int:
        """Write all faces of the gallery to a table or to COCO JSON; returns how many.

        Faces that were marked by hand are rows without landmarks and embedding.

        The columns of a table are those of ``face2vec.exchange.table``: photo, box, landmarks,
        confidence, quality and its parts, person, and the embedding float32 (d,). COCO JSON has
        photos, boxes, landmarks and people.

        Args:
            path: the file. Its suffix names the format: .parquet, .csv, .npz, .jsonl or .coco.json.

        Raises:
            SettingsError: the suffix is unknown.
            MissingExtraError: the format needs a package that is not installed.
        """
        from face2vec.exchange.export import export
        from face2vec.exchange.formats import ROWS

        gallery = self._session.gallery()
        with gallery.read(batch_size=ROWS) as now:
            return export(arguments.path("path", path), now, gallery.fingerprint)

    def import_faces(
        self, path: Source, *, model: Source | None = None, root: Source | None = None
    ) -> Imported:
        """Add faces with embeddings that were made elsewhere, from a table.

        Only the embedding float32 (d,) of each face is needed. ``photo`` is a path, or any name;
        rows with the same one are faces of one photo. Photos that the gallery has are skipped.
        Faces with a ``name`` are named; one `undo` takes all names back.

        Args:
            path: a .parquet, .csv, .npz or .jsonl file as `export` writes it; it may lack all other
                columns.
            model: what made the embeddings: a key of the catalogue, the path of a model file, or of
                its description (.json), whose entry ``sha256`` is enough if the weights are not
                here. None if the table was exported.
            root: folder that relative photos are in; None for that of the file.

        Raises:
            SettingsError: the table cannot be read, an embedding has another dimension, length 0
                or is not finite, or nothing says which model made them.
            ModelError: the model or its description cannot be read.
            GalleryMismatchError: the gallery, or the table, was made with another model.
            GalleryLockedError: another process is writing to this gallery.
            MissingExtraError: the format needs a package that is not installed.
        """
        from face2vec.exchange.formats import load_table
        from face2vec.exchange.load import add_table, model_of

        for name, place in (("model", model), ("root", root)):
            if place is not None:
                arguments.path(name, place)
        table, made_with = load_table(arguments.path("path", path))
        if root is None:
            root = Path(expanded(path)).absolute().parent
        fingerprint = model_of(path, made_with, model)
        gallery = self._session.gallery_to_import_to(fingerprint, made_with)
        with gallery.write() as writer:
            done = add_table(table, fingerprint, Path(expanded(root)).resolve(), writer, gallery)
            if done.faces:
                self._session.index().save()
        return done

    def import_xmp(self, *photos: Source | Iterable[Source]) -> XmpImported:
        """Name faces by the regions that other programs keep in XMP; one `undo` takes all back.

        Regions are read from ``photo.jpg.xmp``, else ``photo.xmp``, else inside the photo. Each
        names the face that it overlaps, see ``face2vec.exchange.regions.matched``. A person who
        has the name gets the faces, as in `enroll`. Nothing is written to the files.

        Args:
            photos: as the sources of `add`; only photos of the gallery get names.

        Raises:
            SettingsError: a source is not a path, or does not exist.
            GalleryError: there is no gallery, or it cannot be written.
            MissingExtraError: defusedxml is not installed.
        """
        from face2vec.exchange.sidecars import choose

        found = find_photos(paths_of(photos))
        with self._session.gallery().read() as now:
            choice = choose(found, now)
        if choice.named:
            self._enrolled(choice.named)
        return choice.summary()

    def export_xmp(self, to: Source | None = None, *, embed: bool = False) -> XmpExported:
        """Write the names and boxes of all named faces to XMP sidecars; photos are not touched.

        A sidecar of another program is extended: what else is in it stays byte for byte.

        Args:
            to: folder for the sidecars; None for beside the photos.
            embed: write into the photos instead, with the program exiftool, which keeps each photo
                as it was as ``photo.jpg_original``. The gallery keeps their faces and names.

        Raises:
            GalleryNotFoundError: there is no gallery.
            MissingExtraError: defusedxml is not installed.
            SettingsError: ``embed`` is set, and exiftool is not installed, or ``to`` is given.
        """
        from face2vec.exchange import embed as inside
        from face2vec.exchange.sidecars import export, named_photos

        if embed and to is not None:
            raise SettingsError("embed writes into the photos; leave out the folder for sidecars")
        folder = None if to is None else Path(expanded(arguments.path("to", to)))
        with self._session.gallery().read() as now:
            photos = named_photos(now)
        if not embed:
            return export(*photos, folder)
        inside.exiftool()
        with self._session.write() as writer:
            return inside.embed(*photos, writer)

    def export_people(self, to: Source, *, link: bool = False) -> PeopleExported:
        """Write a folder of photos for each named person; the gallery's photos are not touched.

        Run again, it writes only what is missing. Nothing that is there is changed or deleted.

        Args:
            to: the folder that the folders go to; it is made if it does not exist.
            link: make relative symbolic links instead of copies.

        Raises:
            GalleryNotFoundError: there is no gallery.
            SettingsError: the folder cannot be made.
        """
        from face2vec.exchange.folders import export, people_of

        folder = Path(expanded(arguments.path("to", to)))
        with self._session.gallery().read() as now:
            people = people_of(now)
        return export(people, folder, link=link)

    # Maintaining

    def remove(self, *photos: Source | Iterable[Source]) -> Removed:
        """Remove photos from the gallery, and their faces if no copy is left.

        Args:
            photos: paths of photos, or of folders for all photos in them; one by one or in lists.

        Raises:
            GalleryError: none of them is in the gallery, or it cannot be written.
            SettingsError: it is the root of the file system.
        """
        paths = paths_of(photos)
        for path in paths:
            if not path.strip():
                raise arguments.refusal("a photo", path, "a path", "nothing was removed")
            if not is_object(path) and is_root(path):
                raise SettingsError(
                    f"{path} stands for all photos on this machine; nothing was removed; give a "
                    "folder, or delete the folder of the gallery"
                )
        removed = self._remove(lambda writer: writer.remove(paths))
        if not removed.photos:
            raise GalleryError(
                f"none of these is in the gallery {self._session.folder}: {', '.join(paths)}; "
                "give paths as a search shows them"
            )
        return removed

    def prune(self, force: bool = False) -> Removed:
        """Remove the photos whose files no longer exist.

        Args:
            force: also if a whole folder that photos were added from is missing, or one that held
                photos is empty.

        Raises:
            GalleryError: there is such a folder, or the gallery cannot be written.
        """
        return self._remove(lambda writer: writer.prune(force))

    def _remove(self, remove: Callable[[Writer], Removed]) -> Removed:
        with self._session.write() as writer:
            removed = remove(writer)
            if removed.faces:
                self._session.index().save()
        return removed

    def copy_to(self, place: Source | MilvusAddress, *, progress: Progress = False) -> Copied:
        """Copy the gallery to another place: a folder, or an address in Milvus.

        Photos, faces, embeddings, people, what was forgotten and the calibration are copied; edits
        that can be undone are not. Embeddings stay equal bit for bit, which is compared at the
        end. An interrupted copy is continued by the same call.

        Args:
            place: a folder or an address without a gallery, or with an unfinished copy.
            progress: as for `add`; ending it early raises KeyboardInterrupt.

        Raises:
            GalleryError: there is another gallery, or it cannot be written.
            GalleryDamagedError: the copy is not equal to this gallery.
        """
        from face2vec.cluster.copy import copy
        from face2vec.ingest.progress import progress_bar

        source = self._session.gallery()
        with source.read() as now:
            total = now.counts().photos
        target = Session(place_of(place), runtime="onnxruntime")
        try:
            made = target.gallery_made_with(source.fingerprint)
            with target.write() as writer, progress_bar(progress, total, "photo") as bar:
                done = copy(source, made, writer, bar)
                target.index().save()
        finally:
            target.close()
        return done

    def rebuild(self) -> None:
        """Rebuild the index from the embeddings of the gallery.

        Raises:
            GalleryLockedError: another process is writing to the gallery.
        """
        with self._session.write():
            self._session.index().rebuild()

    def check(self) -> list[str]:
        """Read the whole gallery and report what is wrong; [] if it is sound."""
        return [*self._session.problems(), *self._session.index().problems()]

    def info(self) -> dict[str, Any]:
        """JSON-able facts: counts, model, detector, runtime, index and sizes in bytes."""
        gallery, index = self._session.gallery(), self._session.index()
        with gallery.read() as now:
            counts, mapped, people = now.counts(), len(now.mapped()), now.people()
            facts = index.facts(now)
        runtime = self._session.runtime()
        return {
            "gallery": gallery.place,
            **counts._asdict(),
            "people": len(people),
            "named": sum(person.name is not None for person in people),
            "mapped": mapped,
            "upgrade_begun": gallery.upgrade_begun(),
            "made_with": gallery.fingerprint.to_dict(),
            "dimension": gallery.dimension,
            "index": facts.kind,
            "index_recall": None if facts.measured is None else facts.measured.recall,
            "index_recall_faces": None if facts.measured is None else facts.measured.queries,
            "bytes": gallery.bytes(),
            "index_bytes": facts.bytes,
            "runtime": runtime.describe(),
            "detector_runtime": detector_runtime(runtime).describe(),
        }
