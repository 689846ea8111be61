"""The sentence names all that a score depends on."""

from datetime import UTC, datetime

from newsrec.evaluation import protocol_line


def test_the_sentence_names_all_that_a_score_depends_on() -> None:
    line = protocol_line(
        {
            "format": "tianchi",
            "validation": "last-click",
            "train_requests": 60000,
            "test_requests": 50000,
            "candidates": "recall",
            "seed": 7,
            "fingerprint": "0123456789abcdef",
            "test_from": datetime(2017, 10, 15, tzinfo=UTC),
            "test_until": "2017-10-16",
            "users": "held out",
            "refresh_minutes": 30,
            "gap_hours": None,
        }
    )
    assert line == (
        "tianchi, last-click split, trained on 60,000 requests, tested from 2017-10-15 00:00:00+00:00 until "
        "2017-10-16, users: held out, candidates: recall; mean over all 50,000 test requests, a click outside the "
        "candidates counts as zero; seed 7, refresh minutes 30; data 0123456789ab."
    )


def test_an_empty_protocol_still_tells_how_misses_count() -> None:
    assert protocol_line({}) == "mean over all test requests, a click outside the candidates counts as zero."


def test_further_keys_of_any_shape_are_told() -> None:
    line = protocol_line({"recall": ["itemcf", "hot"], "limits": {"depth": 1000, "exact": True}})
    assert "recall [itemcf, hot], limits {depth: 1,000, exact: True}" in line


def test_an_own_denominator_replaces_the_default() -> None:
    assert "mean over the users of day 7," in protocol_line({"denominator": "the users of day 7", "test_requests": 5})
