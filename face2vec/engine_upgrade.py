"""How `Face2Vec` brings a gallery to another model."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from face2vec.engine_opened import fingerprint, of_model
from face2vec.engine_people import PeopleEngine
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.staging import abandon
from face2vec.models import load_model
from face2vec.photos.discover import Source
from face2vec.runtime.select import choose_runtime

if TYPE_CHECKING:
    from face2vec.ingest.reembed import UpgradeSummary


class UpgradeEngine(PeopleEngine):
    """A newer model, an older gallery."""

    def upgrade(
        self,
        model: Source,
        *,
        with_map: bool = False,
        sample: int | None = None,
        drop_missing: bool = False,
        progress: bool = False,
    ) -> UpgradeSummary:
        """Bring the gallery to another model: embed its faces again, from their photos.

        Until all are done the gallery answers as before, and may be added to; then it is of
        the new model at once. Faces keep their numbers, and people their names and faces.
        What is done is kept whatever happens: run it again to go on. Others who have the
        gallery open are told so with `GalleryUpgradedError`, and whoever asks about a face that
        was encoded with the old model with `GalleryMismatchError`.

        Args:
            model: a key of the catalogue or the path of a model file. Of the gallery's own
                model, where its file is now.
            with_map: learn a map from old embeddings to new ones from a sample, and switch as
                soon as that is done. Other faces are found by mapped embeddings until theirs
                are made; so are, for good, those whose photos cannot be read as they were.
            sample: how many faces are embedded before the map is learned; None for 2,000.
            drop_missing: drop photos that cannot be read as they were, mapped or not; without
                it, and without a map, the gallery is not switched where there are some.
            progress: show a bar on standard error.

        Raises:
            GalleryLockedError: another process is writing to the gallery when it is switched.
            GalleryError: the gallery cannot be written.
            ModelError: the model cannot be had or loaded.
            SettingsError: an upgrade to another model has begun, or the sample is too small.
        """
        from tqdm import tqdm

        from face2vec.encoding.encoder import Encoder
        from face2vec.ingest import reembed as upgrading

        gallery = self._readable()
        self._check_cascade(gallery)
        target = load_model(model)
        runtime = choose_runtime(self._runtime_wish, self._threads)
        encoder = Encoder(target, self.detector, runtime, self._max_pixels)
        faces = gallery.counts().faces
        with (
            contextlib.closing(encoder),
            tqdm(total=faces, unit="face", disable=not progress, dynamic_ncols=True) as bar,
        ):
            done = upgrading.UpgradeSummary(switched=True)
            if of_model(gallery, target):
                with gallery.writing():
                    self._note_origin(gallery, target)
            else:
                done = upgrading.upgrade(
                    gallery,
                    self._index_of(gallery),
                    encoder,
                    fingerprint(target, self.detector),
                    bar,
                    with_map=with_map,
                    sample=upgrading.SAMPLE if sample is None else sample,
                    drop_missing=drop_missing,
                )
                if not done.switched:
                    return done
                gallery = self._open_again()
            if len(gallery.mapped()):
                index = self._index_of(gallery)
                done = done.then(upgrading.finish(gallery, index, encoder, bar, drop_missing))
        return done

    def abandon_upgrade(self) -> bool:
        """Delete what an upgrade that was not finished has made; says whether there was one.

        Raises:
            GalleryLockedError: another process is writing to the gallery.
        """
        gallery = self._readable()
        with gallery.writing():
            return abandon(gallery.folder)

    def _open_again(self) -> Gallery:
        """The gallery with the model that it has now."""
        self.close()
        self._wanted_model = self._model = self._calibration = None
        return self._readable()
