"""Counters that Prometheus collects from ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
REQUESTS = Counter(
    "face2vec_requests", "Requests by route and status", ("route", "status"), registry=REGISTRY
)
SECONDS = Histogram(
    "face2vec_request_seconds", "Duration of requests by route", ("route",), registry=REGISTRY
)
BATCH = Histogram(
    "face2vec_batch_photos",
    "Photos that were encoded together",
    buckets=(1, 2, 4, 8, 16),
    registry=REGISTRY,
)
FACES = Gauge("face2vec_faces", "Faces in the gallery", registry=REGISTRY)
PHOTOS = Gauge("face2vec_photos", "Photos in the gallery", registry=REGISTRY)
JOBS = Gauge("face2vec_jobs_running", "Jobs that are running", registry=REGISTRY)
