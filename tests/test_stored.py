"""Values from files of unknown origin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers import fake_fingerprint

from face2vec import stored
from face2vec.fingerprint import Fingerprint
from face2vec.gallery.rows import integers
from face2vec.gallery.staging import Target
from face2vec.stored import StoredValueError


def test_values_of_the_right_type_are_returned() -> None:
    assert stored.parsed('{"a": [1]}', "it") == {"a": [1]}
    assert stored.text("words", "it") == "words"
    assert stored.text_or_none(None, "it") is None
    assert stored.blob(b"bytes", "it") == b"bytes"
    assert stored.integer(2**63 - 1, "it") == 2**63 - 1
    assert stored.integer(-5, "it", -5, -5) == -5
    assert stored.number(3, "it") == 3.0
    assert stored.mapping({"a": 1}, "it") == {"a": 1}
    assert stored.array([1, 2], "it", 2) == [1, 2]
    assert stored.field({"a": 1}, "a", "it") == 1
    assert integers([(1, 2), (3, 4)], 2, "they").tolist() == [[1, 3], [2, 4]]
    assert integers([], 2, "they").shape == (2, 0)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda: stored.parsed("{", "it"), "it is not JSON"),
        (lambda: stored.parsed(b"{}", "it"), "it is bytes, not text"),
        (lambda: stored.parsed("[" * 100_000, "it"), "it is not JSON"),
        (lambda: stored.text(None, "it"), "it is NULL, not text"),
        (lambda: stored.text_or_none(5, "it"), "it is int, not text"),
        (lambda: stored.blob("words", "it"), "it is str, not bytes"),
        (lambda: stored.integer(True, "it"), "it is bool, not an integer"),
        (lambda: stored.integer(1.0, "it"), "it is float, not an integer"),
        (lambda: stored.integer(-1, "it"), "it is -1; it must be from 0 to"),
        (lambda: stored.integer(2**63, "it"), "it must be from 0 to"),
        (lambda: stored.number(float("nan"), "it"), "not a finite number"),
        (lambda: stored.number("1", "it"), "it is str, not a finite number"),
        (lambda: stored.mapping([], "it"), "it is list, not a JSON object"),
        (lambda: stored.array({}, "it"), "it is dict, not a JSON array"),
        (lambda: stored.array([1], "it", 2), "it has 1 values, not 2"),
        (lambda: stored.field({}, "a", "it"), "it has no 'a'"),
        (lambda: integers([(1,), (2.5,)], 1, "they"), "they are not all integers"),
        (lambda: integers([(None,)], 1, "they"), "they are not all integers"),
    ],
)
def test_values_of_another_type_are_refused(read: Any, words: str) -> None:
    with pytest.raises(StoredValueError, match=words):
        read()


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_fingerprint_refuses_what_is_none() -> None:
    whole = fake_fingerprint(8).to_dict()
    assert Fingerprint.from_dict(whole) == fake_fingerprint(8)
    wrong: list[Any] = [None, [], {}, {**whole, "cascade": "1"}, {**whole, "detector": []}]
    wrong += [without(whole, name) for name in whole]
    model = whole["model"]
    wrong += [{**whole, "model": without(model, name)} for name in model]
    wrong += [{**whole, "model": {**model, "more": 1}}, {**whole, "detector_name": 7}]
    for changed in ({"dimension": 0}, {"dimension": 2**40}, {"input_size": "9"}, {"origin": None}):
        wrong.append({**whole, "model": {**model, **changed}})
    for values in wrong:
        with pytest.raises(StoredValueError):
            Fingerprint.from_json(json.dumps(values))


def test_target_of_an_upgrade_refuses_what_is_none() -> None:
    target = Target("one", "two", fake_fingerprint(8))
    whole = json.loads(target.to_json())
    assert Target.from_json(target.to_json()) == target
    for values in (None, {}, without(whole, "gallery"), {**whole, "new_gallery": 1}):
        with pytest.raises(StoredValueError):
            Target.from_json(json.dumps(values))
