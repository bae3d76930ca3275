"""The embeddings of a gallery in one collection of Milvus."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from face2vec.cluster.address import MilvusAddress, redacted
from face2vec.cluster.policy import IndexRule, index_rule
from face2vec.errors import GalleryDamagedError, GalleryError, MissingExtraError

log = logging.getLogger("face2vec")

STRONG, BOUNDED = "Strong", "Bounded"
"""Consistency: see all that was written before, or what was written some hundred ms before."""
_FIELD = "embedding"
_UPSERT_BYTES = 16 << 20  # of one message; Milvus takes 64 MiB
_IDS = 1000  # faces per query by number
_PAGE = 2000  # faces per page of an iteration
COMPACTION_SECONDS = 120.0
"""How long a removal waits for Milvus to rewrite its files."""
TIMEOUT = 60.0
"""Seconds for which a call is tried again; without a limit the client goes on for an hour."""
LOAD_SECONDS = 600.0  # to build an index, and to load a collection


class Row(NamedTuple):
    """A face as Milvus has it.

    Attributes:
        face: number of the face.
        content: number of the content of its photo.
        quality: fitness for recognition, 0…1, −1 if it was not measured.
        confidence: the detector's, 0…1.
        embedding: little-endian float32 bytes.
    """

    face: int
    content: int
    quality: float
    confidence: float
    embedding: bytes


class Vectors:
    """The collection of one gallery; safe to use from several threads.

    Args:
        address: where it is.

    Raises:
        MissingExtraError: pymilvus is not installed.
        GalleryError: the server does not answer, or refuses the user.
    """

    def __init__(self, address: MilvusAddress) -> None:
        try:
            from pymilvus import MilvusClient
            from pymilvus.exceptions import MilvusException
        except ImportError as error:
            raise MissingExtraError("a gallery in Milvus", "pymilvus", "cluster") from error
        self.address = address
        self._failures = (MilvusException,)
        self._rule: IndexRule | None = None
        self.dimension = 0
        # It logs each failure itself, with its arguments.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        with self._errors():
            self._client = MilvusClient(uri=address.uri, token=address.token, timeout=20.0)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Errors of Milvus as errors of the gallery, without the password.

        Raises:
            GalleryError: Milvus failed.
        """
        try:
            yield
        except self._failures as error:
            said = redacted(" ".join(error.message.split()), self.address)
            raise GalleryError(
                f"the gallery {self.address} cannot be used, because Milvus failed: {said}; see "
                "whether the server runs and whether user and password are right, then run the "
                "same command again"
            ) from None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def gallery(self) -> str | None:
        """Identifier of the gallery that the collection belongs to; None without a collection.

        Raises:
            GalleryDamagedError: it is not a collection of face2vec.
        """
        name = self.address.archive
        with self._errors():
            if not self._client.has_collection(name, timeout=TIMEOUT):
                return None
            described = self._client.describe_collection(name, timeout=TIMEOUT)
        try:
            self.dimension = next(
                int(one["params"]["dim"]) for one in described["fields"] if one["name"] == _FIELD
            )
            return str(json.loads(described["description"])["gallery"])
        except (StopIteration, KeyError, TypeError, ValueError):
            raise GalleryDamagedError(
                f"the collection {name!r} at {self.address} is not one of face2vec; it was not "
                "changed, choose another archive"
            ) from None

    def create(self, gallery: str, dimension: int) -> None:
        """Make the collection for a gallery, if it is not there."""
        from pymilvus import DataType, MilvusClient

        self.dimension = dimension
        schema = MilvusClient.create_schema(
            auto_id=False,
            enable_dynamic_field=False,
            description=json.dumps({"gallery": gallery}),
        )
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("content", DataType.INT64)
        schema.add_field("quality", DataType.FLOAT)
        schema.add_field("confidence", DataType.FLOAT)
        schema.add_field(_FIELD, DataType.FLOAT_VECTOR, dim=dimension)
        with self._errors():
            self._client.create_collection(
                self.address.archive,
                schema=schema,
                index_params=self._index(index_rule(0)),
                consistency_level=STRONG,
            )

    def load(self) -> None:
        """Have the collection in the memory of the query nodes, as it is after a restart."""
        with self._errors():
            self._client.load_collection(self.address.archive, timeout=LOAD_SECONDS)

    def upsert(self, rows: Sequence[Row]) -> None:
        """Store faces; those with the same numbers are replaced."""
        step = max(1, _UPSERT_BYTES // (4 * self.dimension + 64))
        for start in range(0, len(rows), step):
            data = [
                {
                    "id": row.face,
                    "content": row.content,
                    "quality": row.quality,
                    "confidence": row.confidence,
                    _FIELD: np.frombuffer(row.embedding, "<f4").astype(np.float32),
                }
                for row in rows[start : start + step]
            ]
            with self._errors():
                self._client.upsert(self.address.archive, data, timeout=TIMEOUT)

    def delete(self, faces: Sequence[int]) -> None:
        """Have faces no longer found; their bytes stay in files of Milvus until `compact`."""
        for start in range(0, len(faces), _IDS):
            with self._errors():
                self._client.delete(
                    self.address.archive, ids=list(faces[start : start + _IDS]), timeout=TIMEOUT
                )

    def of_content(self, content: int) -> list[int]:
        """Numbers of the faces of a content, rising."""
        with self._errors():
            rows = self._client.query(
                self.address.archive,
                filter=f"content == {int(content)}",
                output_fields=["id"],
                consistency_level=STRONG,
                timeout=TIMEOUT,
            )
        return sorted(int(row["id"]) for row in rows)

    def embeddings(
        self, faces: Sequence[int], consistency: str = BOUNDED
    ) -> dict[int, NDArray[np.float32]]:
        """Embeddings float32 (d,) by number of face, as they were stored; others are left out."""
        found: dict[int, NDArray[np.float32]] = {}
        for start in range(0, len(faces), _IDS):
            some = sorted(set(map(int, faces[start : start + _IDS])))
            with self._errors():
                rows = self._client.query(
                    self.address.archive,
                    filter=f"id in {some}",
                    output_fields=["id", _FIELD],
                    consistency_level=consistency,
                    timeout=TIMEOUT,
                )
            for row in rows:
                found[int(row["id"])] = np.asarray(row[_FIELD], np.float32)
        return found

    def pages(
        self, size: int = _PAGE, where: str = "", consistency: str = STRONG
    ) -> Iterator[list[int]]:
        """Numbers of all faces, or of those that a filter leaves, in pages."""
        with self._errors():
            iterator = self._client.query_iterator(
                self.address.archive,
                batch_size=size,
                filter=where or "id >= 0",
                output_fields=["id"],
                consistency_level=consistency,
            )
            try:
                while page := iterator.next():
                    yield [int(row["id"]) for row in page]
            finally:
                iterator.close()

    def count(self, where: str = "", consistency: str = STRONG) -> int:
        """How many faces there are.

        Args:
            where: an expression of Milvus over ``id``, ``content``, ``quality`` and
                ``confidence``; empty for all faces.
            consistency: ``STRONG`` or ``BOUNDED``.
        """
        with self._errors():
            rows = self._client.query(
                self.address.archive,
                filter=where,
                output_fields=["count(*)"],
                consistency_level=consistency,
                timeout=TIMEOUT,
            )
        return int(rows[0]["count(*)"])

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        where: str = "",
        consistency: str = BOUNDED,
        params: Mapping[str, Any] | None = None,
    ) -> list[list[int]]:
        """Numbers of the proposed faces of each query float32 (n, d), best first."""
        with self._errors():
            found = self._client.search(
                self.address.archive,
                data=list(queries),
                limit=k,
                filter=where,
                anns_field=_FIELD,
                consistency_level=consistency,
                search_params={"metric_type": "IP", "params": dict(params or {})},
                timeout=TIMEOUT,
            )
        return [[int(one["id"]) for one in row] for row in found]

    @property
    def rule(self) -> IndexRule:
        """The index that the collection has."""
        if self._rule is None:
            with self._errors():
                found = self._client.describe_index(self.address.archive, _FIELD, timeout=TIMEOUT)
            rows = int((found or {}).get("nlist", 0))
            self._rule = IndexRule(str((found or {}).get("index_type", "FLAT")), rows)
        return self._rule

    def index_as(self, rule: IndexRule) -> None:
        """Replace the index; searches wait meanwhile."""
        name = self.address.archive
        with self._errors():
            self._client.flush(name, timeout=TIMEOUT)
            self._client.release_collection(name, timeout=TIMEOUT)
            self._client.drop_index(name, _FIELD, timeout=TIMEOUT)
            self._client.create_index(name, self._index(rule), timeout=LOAD_SECONDS)
            self._client.load_collection(name, timeout=LOAD_SECONDS)
        self._rule = rule

    def flush(self) -> None:
        """Have Milvus write what it has only in its queue to its segments."""
        with self._errors():
            self._client.flush(self.address.archive, timeout=TIMEOUT)

    def compact(self, seconds: float = COMPACTION_SECONDS) -> bool:
        """Have Milvus rewrite its files without deleted faces, and wait for it.

        Args:
            seconds: how long to wait.

        Returns:
            Whether that was done in time; if not, Milvus goes on with it.
        """
        from pymilvus.grpc_gen import milvus_pb2

        name = self.address.archive
        end = time.monotonic() + seconds
        with self._errors():
            self._client.flush(name, timeout=TIMEOUT)
            number = self._client.describe_collection(name, timeout=TIMEOUT)["collection_id"]
            # The client's own call sends the name alone, which servers before 2.4 do not know.
            request = milvus_pb2.ManualCompactionRequest(collectionID=number, collection_name=name)
            handler = self._client._get_connection()
            job = handler._stub.ManualCompaction(request, timeout=TIMEOUT).compactionID
            while (state := self._client.get_compaction_state(job, timeout=TIMEOUT)) != "Completed":
                if time.monotonic() > end:
                    log.warning(
                        "Milvus has not rewritten the files of %s in %.0f s (%s); it goes on, and "
                        "the next change of the gallery asks again",
                        self.address,
                        seconds,
                        state,
                    )
                    return False
                time.sleep(0.2)
        return True

    def server_version(self) -> str:
        """What the server says that it is."""
        with self._errors():
            return str(self._client.get_server_version())

    def drop(self) -> None:
        """Delete the collection."""
        with self._errors():
            self._client.drop_collection(self.address.archive, timeout=TIMEOUT)

    @staticmethod
    def _index(rule: IndexRule) -> Any:
        from pymilvus import MilvusClient

        index = MilvusClient.prepare_index_params()
        index.add_index(_FIELD, index_type=rule.kind, metric_type="IP", params=rule.built_with)
        return index
