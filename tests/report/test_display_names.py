"""Names that a report shows."""

import pytest

from bigearthnet_cbir.data.labels import CLASSES
from bigearthnet_cbir.directions import DIRECTIONS
from bigearthnet_cbir.report.display_names import (
    direction_heading,
    direction_sentence,
    direction_title,
    query_sensors,
    result_sensor,
    short_class_name,
)


@pytest.mark.parametrize(
    ("name", "heading", "sentence", "query", "result"),
    [
        ("fused", "Fused → fused", "Fused queries, fused archive.", ("s1", "s2"), "s2"),
        ("s1_s1", "S1 → S1", "Radar queries, radar archive.", ("s1",), "s1"),
        ("s2_s1", "S2 → S1", "Optical queries, radar archive.", ("s2",), "s1"),
        ("s1_fused", "S1 → fused", "Radar queries, fused archive.", ("s1",), "s2"),
        ("s3_s1", "s3_s1", "Direction s3_s1.", ("s2",), "s2"),
    ],
)
def test_a_direction_is_shown_by_its_features(
    name: str, heading: str, sentence: str, query: tuple[str, ...], result: str
) -> None:
    assert (direction_heading(name), direction_sentence(name)) == (heading, sentence)
    assert (query_sensors(name), result_sensor(name)) == (query, result)


def test_every_direction_has_names_of_its_own() -> None:
    for names in (direction_title, direction_heading, direction_sentence):
        assert len({names(name) for name in DIRECTIONS}) == len(DIRECTIONS)


def test_short_class_names_stay_apart_and_are_not_longer() -> None:
    assert len({short_class_name(name) for name in CLASSES}) == len(CLASSES)
    assert all(len(short_class_name(name)) <= min(len(name), 24) for name in CLASSES)
