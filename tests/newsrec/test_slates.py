"""Which shown lists are asked for, in which order their items stand, and what of them is known to a request."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pytest

from features.build import build
from features.catalog import features_for
from features.events import EventStore
from features.vocabulary import Vocabulary
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.slates import (
    FOLDS,
    SPLITS,
    canonical_requests,
    requests_of,
    slates_of,
    split_for_recall,
    split_slates,
)
from newsrec.slates import unseen_slates as unseen
from newsrec.split import PARTS, Split, SplitConfig, split_log
from tests.factories import articles_of, clicks_of, instant, log_of, ms

MS = 1 / 60_000
"""One millisecond, in minutes."""
DAY = 24 * 60.0
Shown = tuple[int, int, float, Sequence[int], Sequence[int]]
"""Number, user, minutes, the list, what was clicked in it."""
LISTS: tuple[Shown, ...] = (
    (90, 1, 0.0, (12, 10, 11), (10,)),
    (80, 1, 60.0, (14, 12), ()),
    (70, 2, 2 * DAY - MS, (11, 10, 14, 13), (13, 11)),
    (60, 1, 2 * DAY, (15,), (15,)),
    (51, 2, 3 * DAY - MS, (10, 12), (12,)),
    (50, 2, 3 * DAY - MS, (12, 10), (10,)),
    (40, 3, 3 * DAY, (13, 16, 10), (16,)),
    (30, 1, 3 * DAY + 5, (13, 12), ()),
    (20, 1, 4 * DAY - 30, (16, 17), (16, 17)),
)
"""At and one millisecond before each border; numbers against time; lists no sort gives; two of a user at once."""
ARTICLES = articles_of([10, 16, 17], created=[-60.0, 3 * DAY - 120, None])


def shown_of(lists: Sequence[Shown], **context: Sequence[object]) -> pl.DataFrame:
    """Canonical impressions with their order, as files give it."""
    rows = [
        (number, user, instant(minutes), item, item in clicked, place, *(values[at] for values in context.values()))
        for at, (number, user, minutes, items, clicked) in enumerate(lists)
        for place, item in enumerate(items, 1)
    ]
    names = ("request_id", "user_id", "requested_at", "item_id", "clicked", "slate_order", *context)
    frame = pl.DataFrame(rows, schema=list(names), orient="row")
    return frame.with_columns(pl.col("requested_at").dt.cast_time_unit("ms"))


def shown_log(lists: Sequence[Shown] = LISTS, **context: Sequence[object]) -> Log:
    """A log whose clicks are those of its lists."""
    shown = shown_of(lists, **context)
    rows = [(user, item, minutes) for _, user, minutes, _, clicked in lists for item in clicked]
    log = log_of(clicks_of(rows), ARTICLES)
    return Log("made", log.clicks, log.articles, impressions=shown.sort("requested_at", "request_id", "slate_order"))


def store_of(log: Log) -> EventStore:
    return EventStore(log.clicks, log.articles, log.impressions)


def split_of(log: Log, **config: object) -> Split:
    return split_slates(log, store_of(log), SplitConfig(**config))  # type: ignore[arg-type]


def asked(split: Split, *parts: str) -> list[int]:
    """The log's numbers of what is asked for, in order."""
    return split.part(*(parts or PARTS))["impression_id"].to_list()


def lists(split: Split) -> dict[int, list[tuple[int, int]]]:
    """Number -> (item, label) in the order of the split."""
    assert split.slates is not None
    joined = split.requests.join(split.slates, on="request_id", maintain_order="left_right")
    return {
        key[0]: list(frame.select("item_id", "label").rows())
        for key, frame in joined.group_by("impression_id", maintain_order=True)
    }


class TestSplit:
    def test_every_list_with_a_click_is_a_request_in_half_open_periods(self) -> None:
        split = split_of(shown_log())
        assert asked(split, "train") == [90, 70]
        assert asked(split, "valid") == [60, 50, 51]
        assert asked(split, "test") == [40, 20]
        assert (split.learn_until, split.known_until) == (ms(2 * DAY), ms(3 * DAY))
        assert split.requests["requested_at"].to_list() == sorted(split.requests["requested_at"])
        assert split.requests["statistics_at"].equals(split.requests["requested_at"])
        assert split.requests["request_id"].to_list() == list(range(7))
        assert split.requests.schema["request_id"] == pl.Int64

    def test_lists_keep_their_order_whole_with_what_was_clicked(self) -> None:
        found = lists(split_of(shown_log()))
        wanted = {n: [(item, int(item in clicked)) for item in items] for n, _, _, items, clicked in LISTS if clicked}
        assert found == wanted
        assert found[60] == [(15, 1)]

    def test_two_lists_of_a_user_at_one_instant_stay_two(self) -> None:
        split = split_of(shown_log())
        both = split.requests.filter(pl.col("impression_id").is_in([50, 51]))
        assert both["requested_at"].n_unique() == both["user_id"].n_unique() == 1
        assert both["positives"].to_list() == [1, 1]
        assert lists(split)[50] == [(12, 0), (10, 1)]
        assert lists(split)[51] == [(10, 0), (12, 1)]

    def test_list_without_a_click_is_never_asked_for_and_known_as_shown(self) -> None:
        """12 was shown to user 1 at minute 0 and, without a click, at minute 60; 80 and 30 are no requests."""
        log = shown_log()
        split = split_of(log)
        assert not {80, 30} & set(asked(split))
        request = split.requests.filter(impression_id=20)
        at = request.with_columns(pl.lit(instant(61)).dt.cast_time_unit("ms").alias("requested_at"))
        at = at.with_columns(statistics_at=pl.col("requested_at"))
        candidates = request.select("request_id", item_id=pl.lit(12, pl.Int64))
        known = [f for f in features_for(()) if f.name == "user_item_exposures_24h"]
        assert build(candidates, at, store_of(log), Vocabulary.of(log.clicks), known).to_series().to_list() == [2.0]

    def test_positives_are_the_clicked_items(self) -> None:
        split = split_of(shown_log())
        joined = split.requests.join(split.positives, on="request_id", maintain_order="left_right")
        assert sorted(joined.select("impression_id", "item_id").rows()) == sorted(
            (number, item) for number, _, _, _, clicked in LISTS for item in clicked
        )
        assert split.requests["positives"].to_list() == [1, 2, 1, 1, 1, 1, 2]
        assert split.requests.schema["positives"] == pl.UInt32

    def test_history_is_what_was_clicked_before_and_age_that_of_the_youngest(self) -> None:
        """10 is an hour old at the first list; 13 and 11 exist from their first event; 16 is two hours old, then 25."""
        split = split_of(shown_log())
        assert dict(split.requests.select("impression_id", "history_clicks").rows()) == {
            90: 0, 70: 0, 60: 1, 50: 2, 51: 2, 40: 0, 20: 2
        }  # fmt: skip
        ages = dict(split.requests.select("impression_id", "positive_age_hours").rows())
        assert ages[90] == 1.0
        assert ages[40] == 2.0
        assert ages[20] == 0.0  # 17 was never seen before
        assert ages[50] == pytest.approx(73, abs=1e-3)
        assert ages[70] == 0.0  # 13 is new

    def test_context_of_a_list_goes_with_its_request(self) -> None:
        devices, pages = [n % 3 for n in range(9)], [10, None, 11, None, 12, 13, None, 14, 15]
        split = split_of(shown_log(device=devices, page_item_id=pages))
        number = {row[0]: at for at, row in enumerate(LISTS)}
        for impression, device, page in split.requests.select("impression_id", "device", "page_item_id").rows():
            assert (device, page) == (devices[number[impression]], pages[number[impression]])

    def test_gap_freezes_statistics_before_each_scored_period(self) -> None:
        plain, split = split_of(shown_log()), split_of(shown_log(), validation="gap", gap_hours=6.0)
        assert split.requests.drop("statistics_at").equals(plain.requests.drop("statistics_at"))
        assert split.part("train")["statistics_at"].equals(split.part("train")["requested_at"])
        assert set(split.part("valid")["statistics_at"]) == {instant(2 * DAY - 360)}
        assert set(split.part("test")["statistics_at"]) == {instant(3 * DAY - 360)}
        assert split.protocol["gap_hours"] == 6.0

    def test_training_waits_only_where_told(self) -> None:
        assert asked(split_of(shown_log(), warmup_hours=1.0), "train") == [70]
        assert asked(split_of(shown_log()), "train") == [90, 70]

    def test_order_of_the_rows_inside_a_list_is_all_that_counts(self) -> None:
        log = shown_log()
        numbers = [row[0] for row in LISTS]
        shuffled = pl.concat([log.impressions.filter(request_id=n) for n in numbers[::-1]])
        one, other = split_of(log), split_of(Log("made", log.clicks, log.articles, impressions=shuffled))
        assert one.requests.equals(other.requests)
        assert lists(one) == lists(other)
        assert one.positives.sort("request_id", "item_id").equals(other.positives.sort("request_id", "item_id"))

    def test_limits_hold_and_a_drawn_list_stays_whole(self) -> None:
        split = split_of(shown_log(), train_requests=1, valid_requests=2, test_requests=1, seed=3)
        assert [len(split.part(name)) for name in PARTS] == [1, 2, 1]
        assert split.protocol["available_requests"] == {"test": 2, "train": 2, "valid": 3}
        whole = lists(split_of(shown_log()))
        assert lists(split) == {number: whole[number] for number in asked(split)}

    def test_protocol_says_what_is_asked(self) -> None:
        protocol = split_of(shown_log()).protocol
        assert protocol["requests"] == "every impression with a click"
        assert [protocol[f"{name}_requests"] for name in PARTS] == [2, 3, 2]
        assert protocol["test_from"] == instant(3 * DAY).isoformat()

    def test_last_click_and_a_log_of_clicks_are_refused(self) -> None:
        with pytest.raises(UsageError, match="--validation last-click: expected a click log, found shown lists"):
            split_of(shown_log(), validation="last-click")
        clicks = log_of(shown_log().clicks)
        with pytest.raises(UsageError, match="--candidates slate: expected a log with impressions, found clicks only"):
            split_of(clicks)

    def test_period_without_a_request_is_refused(self) -> None:
        with pytest.raises(DataError, match="found none for train"):
            split_of(shown_log(LISTS[3:]))


class TestRecall:
    def test_requests_are_those_of_lists_without_the_lists(self) -> None:
        log = shown_log()
        split, whole = split_for_recall(log, store_of(log), SplitConfig()), split_of(log)
        assert split.slates is None
        assert split.requests.equals(whole.requests)
        assert split.positives.equals(whole.positives)

    def test_log_of_clicks_and_last_clicks_are_asked_at_clicks(self) -> None:
        rows = [(user, item, item * 500.0 + user) for user in range(1, 41) for item in range(12)]
        log = log_of(clicks_of(rows))
        for mode in ("temporal", "last-click", "gap"):
            config = SplitConfig(mode)
            one, other = split_for_recall(log, store_of(log), config), split_log(log, store_of(log), config)
            assert one.requests.equals(other.requests)
        shown = Log("made", log.clicks, log.articles, impressions=shown_of(LISTS))
        split = split_for_recall(shown, store_of(shown), SplitConfig("last-click"))
        assert split.requests["user_id"].n_unique() == len(split.requests) == 40

    def test_both_ways_have_their_name(self) -> None:
        assert {"recall": split_for_recall, "slate": split_slates} == SPLITS


class TestUnseen:
    def of(self, known: int, **config: object) -> Split:
        log = shown_log()
        return unseen(log, store_of(log), SplitConfig(**config), shown_of(LISTS[:known]) if known else None)  # type: ignore[arg-type]

    def test_only_lists_with_a_click_that_are_not_known_are_asked_for(self) -> None:
        split = self.of(4)
        assert asked(split) == [50, 51, 40, 20]
        assert set(split.requests["split"]) == {"test"}
        assert lists(split) == {n: found for n, found in lists(split_of(shown_log())).items() if n in asked(split)}
        assert split.requests["statistics_at"].equals(split.requests["requested_at"])
        assert split.protocol["test_requests"] == split.protocol["available_requests"] == 4
        assert split.protocol["train_requests"] == 0

    def test_nothing_known_asks_for_all_and_everything_known_for_none(self) -> None:
        assert asked(self.of(0)) == asked(split_of(shown_log()))
        nothing = self.of(9)
        assert nothing.requests.is_empty()
        assert nothing.positives.is_empty()

    def test_requests_of_the_test_period_are_those_of_the_split(self) -> None:
        whole = split_of(shown_log(), validation="gap", gap_hours=5.0)
        split = self.of(6, validation="gap", gap_hours=5.0)
        test = whole.part("test")
        assert split.requests.drop("request_id").equals(test.select(split.requests.columns).drop("request_id"))
        assert set(split.requests["statistics_at"]) == {instant(3 * DAY - 300)}

    def test_limit_holds_and_the_draw_repeats(self) -> None:
        one, same = self.of(0, test_requests=3, seed=4), self.of(0, test_requests=3, seed=4)
        assert len(one.requests) == 3
        assert asked(one) == asked(same)
        assert any(asked(self.of(0, test_requests=3, seed=seed)) != asked(one) for seed in range(5, 9))
        assert one.protocol["available_requests"] == 7
        assert one.requests["requested_at"].is_sorted()

    def test_log_of_clicks_is_refused(self) -> None:
        log = log_of(shown_log().clicks)
        with pytest.raises(DataError, match="--data: expected impressions, as the bundle ranks shown lists, found"):
            unseen(log, store_of(log), SplitConfig(), None)


class TestAllLists:
    def test_requests_hold_every_list_in_order_of_time_then_number(self) -> None:
        rows = requests_of(shown_log().impressions)
        assert rows["impression_id"].to_list() == [90, 80, 70, 60, 50, 51, 40, 30, 20]
        assert rows["positives"].to_list() == [1, 0, 2, 1, 1, 1, 1, 0, 2]
        assert rows["time"].to_list() == [round(at.timestamp() * 1_000) for at in rows["requested_at"]]

    def test_canonical_requests_are_live_and_their_lists_complete(self) -> None:
        log = shown_log()
        requests = canonical_requests(requests_of(log.impressions), store_of(log))
        assert requests["statistics_at"].equals(requests["requested_at"])
        assert requests["request_id"].to_list() == list(range(9))
        shown = slates_of(log.impressions, requests)
        assert shown.schema["label"] == pl.UInt8
        assert shown["item_id"].to_list() == [i for n in requests["impression_id"] for i in self.items(n)]
        turned = slates_of(log.impressions, requests.reverse())
        assert turned["request_id"].unique(maintain_order=True).to_list() == list(range(8, -1, -1))

    def items(self, number: int) -> Sequence[int]:
        return next(row[3] for row in LISTS if row[0] == number)


def test_moment_of_a_list_is_its_own_and_not_that_of_its_click() -> None:
    """Four seconds later the click came; whoever asks then knows the list."""
    rows = [(user, item, minutes + 4 / 60) for _, user, minutes, _, clicked in LISTS for item in clicked]
    log = Log("made", log_of(clicks_of(rows)).clicks, ARTICLES, impressions=shown_log().impressions)
    moments = {moment - timedelta(seconds=4) for moment in log.clicks["clicked_at"]}
    assert set(split_of(log).requests["requested_at"]) == moments


@pytest.mark.parametrize("candidates", FOLDS)
def test_folds_are_the_split_without_its_test_period_and_one_validation_period_earlier(candidates: str) -> None:
    log, config = shown_log(), SplitConfig()
    whole = SPLITS[candidates](log, store_of(log), config)
    latest, earlier = FOLDS[candidates](log, store_of(log), config, 2)
    for part in ("train", "valid"):
        assert asked(latest, part) == asked(whole, part)
    assert asked(latest, "test") == asked(earlier, "test") == []
    assert asked(earlier, "valid") == [70]  # the day before, with what lies a millisecond before its end
    assert asked(earlier, "train") == [90]
    assert (latest.slates is None) == (candidates == "recall")
    assert set(latest.positives["item_id"]) == set(whole.positives.join(latest.requests, on="request_id")["item_id"])


def test_folds_over_shown_lists_need_lists() -> None:
    log = Log("made", shown_log().clicks, ARTICLES)
    with pytest.raises(UsageError, match="--candidates slate: expected a log with impressions, found clicks only"):
        FOLDS["slate"](log, store_of(log), SplitConfig(), 2)
