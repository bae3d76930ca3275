"""Every route of the API with drawn requests, with and without a token.

Run by ``scripts/test --browser``. ``FACE2VEC_EXAMPLES`` is the number of requests for each route;
``FACE2VEC_WRITE_DOCS=1`` writes how many there were to the documentation.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import TOKEN, Limits, Served, copied, drawn_gallery, served

pytestmark = pytest.mark.browser

EXAMPLES = int(os.environ.get("FACE2VEC_EXAMPLES", "20"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
settings = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    drawn = drawn_gallery(tmp_path_factory.mktemp("service"))
    place = copied(drawn, tmp_path_factory.mktemp("fuzz"))
    with served(place, roots=(drawn / "photos",), limits=Limits(rate=None)) as one:
        yield one


@pytest.fixture(scope="module")
def statuses() -> dict[str, Counter[int]]:
    """How many answers had each status, by who has asked."""
    return {}


@pytest.fixture(scope="module")
def described(service: Served) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    found = schemathesis.openapi.from_url(f"{service.base}/openapi.json", headers=headers)
    # The stream of events has no end.
    return found.exclude(path="/v1/events")


def called(described: Any, check: Callable[[schemathesis.Case], None]) -> list[str]:
    """What is wrong with the answers to drawn requests, one line for each route."""
    wrong = []
    for found in described.get_all_operations():
        route = found.ok()

        @settings
        @hypothesis.given(case=route.as_strategy())
        def call(case: schemathesis.Case) -> None:
            check(case)

        try:
            call()
        except AssertionError as error:
            wrong.append(f"{route.method} {route.path}: {error}")
        except BaseExceptionGroup as group:
            wrong.append(f"{route.method} {route.path}: {group.exceptions}")
    return wrong


def test_drawn_requests_are_answered_as_described(
    described: Any, statuses: dict[str, Counter[int]]
) -> None:
    counts = statuses["with the token"] = Counter()

    def check(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS)
        counts[answer.status_code] += 1

    assert called(described, check) == []


def test_drawn_requests_without_token_are_refused(
    described: Any, statuses: dict[str, Counter[int]]
) -> None:
    counts = statuses["without"] = Counter()

    def check(case: schemathesis.Case) -> None:
        answer = case.call(headers={"Authorization": "Bearer none"})
        counts[answer.status_code] += 1
        assert answer.status_code in (400, 401, 413, 421), (answer.status_code, answer.text)

    assert called(described, check) == []


def test_service_still_answers(service: Served) -> None:
    assert service.get("/v1/info")["gallery"]


@pytest.mark.skipif("FACE2VEC_WRITE_DOCS" not in os.environ, reason="writes the documentation")
def test_figures_are_written(statuses: dict[str, Counter[int]]) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    from common import publish, table  # type: ignore[import-not-found, unused-ignore]

    kinds = [range(100 * kind, 100 * kind + 100) for kind in (2, 4, 5)]
    rows = [
        (who, f"{counts.total():,}", *(f"{sum(counts[one] for one in kind):,}" for kind in kinds))
        for who, counts in statuses.items()
    ]
    body = table(["token", "requests", "status 2xx", "4xx", "5xx"], rows)
    command = f"FACE2VEC_EXAMPLES={EXAMPLES} scripts/test --browser"
    publish("requests", "Requests drawn from the description of the API", body, command,
            ["face2vec", "schemathesis", "hypothesis", "fastapi"])  # fmt: skip
