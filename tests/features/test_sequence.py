"""Histories of requests: strictly before, newest first, and no reading that has not ended."""

import numpy as np
import pytest

from features.events import EventStore
from features.sequence import histories
from tests.factories import articles_of, clicks_of, instant, ms, rich_log

CLICKS = clicks_of([(1, 10, 0), (1, 11, 60), (2, 10, 61), (1, 12, 90)], dwell_seconds=[5.0, 600.0, None, 30.0])


def store() -> EventStore:
    return EventStore(CLICKS, articles_of([10, 11, 12]))


def test_history_by_hand() -> None:
    s = store()
    found = histories(s, s.user_codes(CLICKS["user_id"])[:2].repeat(2), np.array([ms(90), ms(65), ms(0), ms(1e4)]), 2)
    assert found.length.tolist() == [2, 2, 0, 2]
    assert s.items.gather(found.item).to_list() == [11, 10, 11, 10, 12, 11]
    assert found.age_hours[:4] == pytest.approx([0.5, 1.5, 5 / 60, 65 / 60])
    # At minute 65 the article opened at minute 60 is still being read.
    np.testing.assert_array_equal(found.dwell_seconds, np.array([600, 5, np.nan, 5, 30, 600], np.float32))


def test_a_click_at_the_request_is_not_history_and_a_reading_that_ends_there_is_not_known() -> None:
    s, user = store(), np.array([0])
    assert histories(s, user, np.array([ms(60)]), 9).length.tolist() == [1]
    assert np.isnan(histories(s, user, np.array([ms(70)]), 9).dwell_seconds[0])
    assert histories(s, user, np.array([ms(70) + 1]), 9).dwell_seconds[0] == 600


def test_strangers_have_none() -> None:
    found = histories(store(), np.array([-1, -1]), np.array([ms(99), ms(99)]), 9)
    assert found.length.tolist() == [0, 0]
    assert len(found.item) == len(found.age_hours) == len(found.dwell_seconds) == 0


@pytest.mark.parametrize("minutes", [600.0, 1_500.0, 2_400.0])
def test_what_happens_at_or_after_the_request_changes_nothing(minutes: float) -> None:
    log = rich_log(2)
    early = log.clicks.filter(log.clicks["clicked_at"] < instant(minutes))
    users = early["user_id"].unique().sort()
    found = []
    for clicks in (early, log.clicks):
        s = EventStore(clicks, log.articles)
        told = histories(s, s.user_codes(users), np.full(len(users), ms(minutes)), 5)
        ids = s.items.gather(told.item).to_list()
        found.append(
            (told.length.tolist(), ids, told.age_hours.tolist(), np.nan_to_num(told.dwell_seconds, nan=-1).tolist())
        )
    assert found[0] == found[1]
    assert sum(found[0][0]) > 20
