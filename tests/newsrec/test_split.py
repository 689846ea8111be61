"""Which moments are asked for, and where train ends and validation and test begin."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from features.columns import HOUR
from features.events import EventStore
from newsrec.data import Log
from newsrec.errors import DataError, UsageError
from newsrec.split import PARTS, VALIDATIONS, Split, SplitConfig, held_out_requests, rolling_folds, split_log
from tests.factories import articles_of, clicks_of, instant, log_of, ms, small_log

MS = 1 / 60_000
"""One millisecond, in minutes."""
DAY = 24 * 60.0
BORDERS = clicks_of(
    [
        (1, 10, 0.0),
        (1, 11, 60.0),
        (1, 12, 2 * DAY - MS),
        (1, 13, 2 * DAY),
        (1, 14, 3 * DAY - MS),
        (1, 15, 3 * DAY),
        (1, 16, 4 * DAY - 30),
        (2, 10, 2 * DAY + 100),
    ]
)
"""User 1 at and one millisecond before each border of the last two of four days; user 2 once."""


def split_of(log: Log, **config: object) -> Split:
    return split_log(log, store_of(log), SplitConfig(**config))  # type: ignore[arg-type]


def store_of(log: Log) -> EventStore:
    return EventStore(log.clicks, log.articles)


def asked(split: Split, *parts: str) -> list[tuple[object, ...]]:
    """`user, moment, clicked article` of the parts, in order."""
    joined = split.part(*parts).join(split.positives, on="request_id", maintain_order="left_right")
    return joined.select("user_id", "requested_at", "item_id").rows()


def hours(frame: pl.DataFrame) -> set[datetime]:
    return set(frame["requested_at"].dt.truncate("1h"))


def readers(users: int = 60, seed: int = 0) -> Log:
    """Users with three to six clicks over four days; every fifth ends with two clicks at one instant."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(1, users + 1):
        moments = np.sort(rng.choice(int(4 * DAY), rng.integers(3, 7), replace=False)).tolist()
        rows += [(user, int(item), moment) for item, moment in zip(rng.permutation(20), moments, strict=False)]
        rows += [(user, 100 + user, moments[-1])] if user % 5 == 0 else []
    return log_of(clicks_of(rows))


class TestTemporal:
    def test_periods_are_half_open_days_back_from_the_end(self) -> None:
        split = split_of(log_of(BORDERS), warmup_hours=0)
        assert asked(split, "train") == [(1, instant(60), 11), (1, instant(2 * DAY - MS), 12)]
        assert asked(split, "valid") == [(1, instant(2 * DAY), 13), (1, instant(3 * DAY - MS), 14)]
        assert asked(split, "test") == [(1, instant(3 * DAY), 15), (1, instant(4 * DAY - 30), 16)]
        assert (split.learn_until, split.known_until) == (ms(2 * DAY), ms(3 * DAY))
        assert split.requests["statistics_at"].equals(split.requests["requested_at"])

    def test_protocol_names_the_periods_and_counts(self) -> None:
        log = log_of(BORDERS)
        protocol = split_of(log, warmup_hours=0, train_requests=1, seed=3).protocol
        moments = {name: protocol[name] for name in ("train_from", "valid_from", "test_from", "test_until")}
        assert moments == {
            "train_from": instant(60).isoformat(),
            "valid_from": instant(2 * DAY).isoformat(),
            "test_from": instant(3 * DAY).isoformat(),
            "test_until": (instant(4 * DAY - 30) + timedelta(milliseconds=1)).isoformat(timespec="microseconds"),
        }
        assert [protocol[f"{name}_requests"] for name in PARTS] == [1, 2, 2]
        assert protocol["available_requests"] == {"test": 2, "train": 2, "valid": 2}
        assert (protocol["format"], protocol["validation"], protocol["seed"]) == ("made", "temporal", 3)

    @pytest.mark.parametrize(("test_days", "valid_days"), [(0.3, 0.3), (0.51, 0.07), (1.0, 0.999)])
    def test_borders_are_whole_hours_and_no_hour_is_shared(self, test_days: float, valid_days: float) -> None:
        split = split_of(small_log(1), test_days=test_days, valid_days=valid_days, warmup_hours=0)
        assert split.learn_until is not None
        assert split.known_until is not None
        assert split.learn_until % HOUR == split.known_until % HOUR == 0
        train, valid, test = (hours(split.part(name)) for name in PARTS)
        assert not train & valid
        assert not valid & test
        assert max(train) < min(valid)
        assert max(valid) < min(test)

    def test_warm_up_does_not_train_and_gives_way_on_a_short_log(self) -> None:
        rows = [(1, item, 90.0 * item) for item in range(64)]
        first = 90.0
        log = log_of(clicks_of(rows))
        assert asked(split_of(log, warmup_hours=5.0), "train")[0] == (1, instant(450), 5)
        # 24 hours would be more than a quarter of the two days before validation.
        quarter = first + (2 * DAY - first) / 4
        moments = split_of(log, warmup_hours=24.0).part("train")["requested_at"]
        assert moments.min() == instant(min(90.0 * item for item in range(64) if 90.0 * item >= quarter))


class TestRequests:
    def test_first_click_of_a_user_makes_no_request_even_where_two_tie(self) -> None:
        rows = [(2, 30, 100.0), (2, 31, 100.0), (2, 32, 200.0)]
        log = log_of(pl.concat([BORDERS, clicks_of(rows)]))
        assert [row for row in asked(split_of(log, warmup_hours=0), *PARTS) if row[0] == 2] == [
            (2, instant(200), 32),
            (2, instant(2 * DAY + 100), 10),
        ]

    @pytest.mark.parametrize("mode", VALIDATIONS)
    def test_clicks_at_one_instant_are_one_request_with_several_positives(self, mode: str) -> None:
        split = split_of(readers(), validation=mode, warmup_hours=0)
        keys = split.requests.select("user_id", "requested_at")
        assert not keys.is_duplicated().any()
        double = split.requests.filter(pl.col("positives") > 1)
        assert 0 < len(double) < len(split.requests)
        assert set(double["user_id"]) <= {user for user in range(1, 61) if user % 5 == 0}
        counted = split.requests.select("request_id").join(
            split.positives.group_by("request_id").len(), on="request_id", maintain_order="left"
        )
        assert counted["len"].to_list() == split.requests["positives"].to_list()

    def test_columns_say_what_is_known(self) -> None:
        """User 1 has read three; of the two articles clicked then, the younger is 90 minutes old."""
        more = clicks_of([(1, 50, 3 * DAY)])
        articles = articles_of([15, 16, 50], created=[3 * DAY - 300, None, 3 * DAY - 90])
        split = split_of(log_of(pl.concat([BORDERS, more]), articles), warmup_hours=0)
        first, last = split.part("test").to_dicts()
        assert first["history_clicks"] == 5
        assert first["positives"] == 2
        assert first["positive_age_hours"] == 1.5
        assert last["positive_age_hours"] is None
        assert split.requests["request_id"].to_list() == list(range(len(split.requests)))
        assert split.requests["requested_at"].is_sorted()
        assert split.requests.schema["request_id"] == pl.Int64

    @pytest.mark.parametrize("mode", VALIDATIONS)
    def test_held_out_users_never_make_a_request(self, mode: str) -> None:
        log = readers()
        known = log_of(log.clicks, held_out=list(range(1, 31)))
        split = split_of(known, validation=mode, warmup_hours=0)
        assert min(split.requests["user_id"]) == 31
        assert {1, 30} & set(split_of(log, validation=mode, warmup_hours=0).requests["user_id"])

    @pytest.mark.parametrize("mode", VALIDATIONS)
    def test_order_of_the_rows_changes_nothing(self, mode: str) -> None:
        log = readers()
        config = SplitConfig(mode, train_requests=20, valid_requests=5, test_requests=7)
        turned = EventStore(log.clicks.sample(fraction=1, shuffle=True, seed=1), log.articles.reverse())
        one, other = split_log(log, store_of(log), config), split_log(log, turned, config)
        assert one.requests.equals(other.requests)
        assert one.positives.equals(other.positives)


class TestLastClick:
    def test_every_request_is_the_last_click_one_millisecond_after_the_one_before(self) -> None:
        log = readers()
        split = split_of(log, validation="last-click", warmup_hours=0)
        found = {(user, at): set() for user, at, _ in asked(split, *PARTS)}
        for user, at, item in asked(split, *PARTS):
            found[user, at].add(item)
        expected = {}
        for (user,), own in log.clicks.group_by("user_id"):
            last = own["clicked_at"].max()
            before = own.filter(pl.col("clicked_at") < last)["clicked_at"].max()
            items = own.filter(pl.col("clicked_at") == last)["item_id"]
            expected[user, before + timedelta(milliseconds=1)] = set(items)
        assert found == expected
        assert split.requests["statistics_at"].equals(split.requests["requested_at"])
        assert split.known_until is None
        assert split.learn_until is None

    @pytest.mark.parametrize("seed", range(5))
    def test_users_of_the_parts_are_disjoint_and_drawn_by_seed(self, seed: int) -> None:
        log = readers()
        split = split_of(log, validation="last-click", warmup_hours=0, seed=seed)
        users = [split.part(name)["user_id"].to_list() for name in PARTS]
        assert [len(part) for part in users] == [60 - 6 - 3, 3, 6]
        assert sorted(user for part in users for user in part) == list(range(1, 61))
        other = split_of(log, validation="last-click", warmup_hours=0, seed=seed + 1)
        assert set(other.part("test")["user_id"]) != set(users[2])

    @pytest.mark.parametrize("seed", range(4))
    def test_both_clicks_of_a_tie_stay_in_one_part(self, seed: int) -> None:
        """All users end with a tie, so a draw by click instead of by user would tear some apart."""
        rows = [(user, item, m) for user in range(1, 41) for item, m in ((1, user), (2, DAY + user), (3, DAY + user))]
        split = split_of(log_of(clicks_of(rows)), validation="last-click", warmup_hours=0, seed=seed)
        assert [len(split.part(name)) for name in PARTS] == [34, 2, 4]
        assert split.protocol["available_requests"] == {"test": 4, "train": 34, "valid": 2}
        assert split.requests["positives"].to_list() == [2] * 40

    def test_limits_hold(self) -> None:
        limits = {"train_requests": 9, "valid_requests": 2, "test_requests": 4}
        split = split_of(readers(), validation="last-click", warmup_hours=0, **limits)
        assert [len(split.part(name)) for name in PARTS] == [9, 2, 4]

    def test_only_training_waits_for_the_warm_up(self) -> None:
        split = split_of(readers(), validation="last-click", warmup_hours=48)
        first = readers().clicks["clicked_at"].min()
        assert split.part("train")["requested_at"].min() >= first + timedelta(hours=48)  # type: ignore[operator]
        assert [len(split.part(name)) for name in ("valid", "test")] == [3, 6]


class TestGap:
    @pytest.mark.parametrize("gap", [0.0, 6.0, 24.0])
    def test_statistics_stop_before_the_scored_period_and_are_live_in_training(self, gap: float) -> None:
        plain = split_of(readers(), warmup_hours=0)
        split = split_of(readers(), validation="gap", gap_hours=gap, warmup_hours=0)
        assert split.requests.drop("statistics_at").equals(plain.requests.drop("statistics_at"))
        assert (split.learn_until, split.known_until) == (plain.learn_until, plain.known_until)
        train = split.part("train")
        assert train["statistics_at"].equals(train["requested_at"])
        assert set(split.part("valid")["statistics_at"]) == {instant(2 * DAY - gap * 60)}
        assert set(split.part("test")["statistics_at"]) == {instant(3 * DAY - gap * 60)}
        assert split.protocol["gap_hours"] == gap


class TestSampling:
    def test_draws_evenly_over_the_time_of_each_part(self) -> None:
        """Of some 1,300 requests half are drawn: about half of each tenth."""
        rows = [(user, item, DAY * 3 * item / 13 + user) for user in range(1, 301) for item in range(14)]
        log = log_of(clicks_of(rows))
        whole = split_of(log, warmup_hours=0)
        assert len(whole.part("train")) > 1_300
        drawn = split_of(log, warmup_hours=0, train_requests=len(whole.part("train")) // 2)
        size = len(whole.part("train")) // 10
        moments = whole.part("train")["requested_at"].to_list()
        for start in range(0, 10 * size, size):
            stretch = pl.col("requested_at").is_between(moments[start], moments[start + size - 1])
            share = len(drawn.part("train").filter(stretch)) / len(whole.part("train").filter(stretch))
            assert 0.3 < share < 0.7
        assert drawn.part("test").drop("request_id").equals(whole.part("test").drop("request_id"))

    def test_same_seed_same_draw_and_another_seed_another(self) -> None:
        one, same, other = (split_of(readers(), warmup_hours=0, train_requests=20, seed=seed) for seed in (4, 4, 5))
        assert one.requests.equals(same.requests)
        assert one.positives.equals(same.positives)
        assert set(asked(one, "train")) != set(asked(other, "train"))

    @pytest.mark.parametrize("seed", range(3))
    def test_request_with_several_positives_is_drawn_whole(self, seed: int) -> None:
        whole, drawn = (split_of(readers(), warmup_hours=0, test_requests=n, seed=seed) for n in (10**6, 15))
        assert len(drawn.part("test")) == 15
        assert drawn.part("test")["positives"].max() == 2
        every = {key: set() for key in whole.part("test").select("user_id", "requested_at").iter_rows()}
        for user, at, item in asked(whole, "test"):
            every[user, at].add(item)
        for user, at in drawn.part("test").select("user_id", "requested_at").iter_rows():
            assert {item for u, t, item in asked(drawn, "test") if (u, t) == (user, at)} == every[user, at]


class TestRefusals:
    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"validation": "random"}, r"--validation: expected one of \['gap', 'last-click', 'temporal'\].*'random'"),
            ({"test_days": 0.0}, "--test-days 0"),
            ({"valid_days": -1.0}, "--valid-days -1"),
            ({"test_days": float("nan"), "valid_days": 0.0}, "--test-days nan, --valid-days 0"),
            ({"test_days": float("inf")}, "--test-days inf"),
            ({"valid_days": 1e15}, "--valid-days 1e.15"),
            ({"gap_hours": -0.5}, "--gap-hours -0.5"),
            ({"gap_hours": float("nan")}, "--gap-hours nan"),
            ({"warmup_hours": float("inf")}, "--warmup-hours inf"),
            ({"train_requests": 0, "test_requests": -3}, "--train-requests 0, --test-requests -3"),
        ],
    )
    def test_impossible_configurations(self, config: dict[str, object], message: str) -> None:
        log = readers()
        with pytest.raises(UsageError, match=message):
            split_of(log, **config)
        with pytest.raises(UsageError, match=message):
            held_out_requests(log, store_of(log), SplitConfig(**config), log.clicks)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("rows", "config", "parts"),
        [
            ([(1, 1, 0.0), (1, 2, 600.0)], {}, "train, valid"),
            ([(1, 1, 0.0), (2, 2, 600.0)], {}, "train, valid, test"),
            ([(1, 1, 0.0), (1, 2, 600.0)], {"validation": "last-click", "warmup_hours": 0}, "valid, test"),
        ],
    )
    def test_part_without_a_request(self, rows: list[tuple[int, int, float]], config: dict, parts: str) -> None:
        with pytest.raises(DataError, match=f"found none for {parts} ") as error:
            split_of(log_of(clicks_of(rows)), **config)
        assert len(str(error.value).splitlines()) == 1

    def test_log_without_a_click(self) -> None:
        with pytest.raises(DataError, match="found none for train, valid, test"):
            split_of(log_of(BORDERS.clear(), articles_of([1])))


class TestFolds:
    def folds(self, count: int, log: Log | None = None, **config: object) -> list[Split]:
        log = log or readers()
        return rolling_folds(log, store_of(log), SplitConfig(warmup_hours=0, **config), count)  # type: ignore[arg-type]

    def test_each_ends_a_validation_period_earlier_and_none_sees_the_test_period(self) -> None:
        folds = self.folds(3, valid_days=0.5)
        assert [fold.known_until for fold in folds] == [ms(DAY * end) for end in (3.0, 2.5, 2.0)]
        assert [fold.learn_until for fold in folds] == [ms(DAY * end) for end in (2.5, 2.0, 1.5)]
        for fold in folds:
            train, valid = fold.part("train")["requested_at"], fold.part("valid")["requested_at"]
            assert fold.part("test").is_empty()
            assert train.dt.timestamp("ms").max() < fold.learn_until <= valid.dt.timestamp("ms").min()
            assert valid.dt.timestamp("ms").max() < fold.known_until

    def test_first_fold_is_the_split_without_its_test(self) -> None:
        log = log_of(BORDERS)
        fold, split = self.folds(1, log)[0], split_of(log, warmup_hours=0)
        assert asked(fold, "train") == asked(split, "train")
        assert asked(fold, "valid") == asked(split, "valid")

    @pytest.mark.parametrize("valid_days", [0.3, 0.45])
    def test_validation_periods_touch_at_whole_hours(self, valid_days: float) -> None:
        folds = self.folds(3, valid_days=valid_days)
        for later, earlier in pairwise(folds):
            assert earlier.known_until == later.learn_until
            assert earlier.learn_until is not None
            assert earlier.learn_until % HOUR == 0
            assert not hours(earlier.part("valid")) & hours(earlier.part("train"))

    def test_too_many_are_refused(self) -> None:
        with pytest.raises(DataError, match=r"fold 2: expected training and validation requests.*fewer folds"):
            self.folds(5)

    def test_none_is_refused(self) -> None:
        with pytest.raises(UsageError, match="expected one fold or more, found 0"):
            self.folds(0)

    def test_mode_that_does_not_divide_by_time_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"--validation last-click: expected a mode that divides by time.*gap"):
            self.folds(1, validation="last-click")
        with pytest.raises(UsageError, match=r"--validation: expected one of .*'random'"):
            self.folds(1, validation="random")

    def test_gap_freezes_statistics_before_each_validation_period(self) -> None:
        plain, frozen = self.folds(2, valid_days=0.5), self.folds(2, valid_days=0.5, validation="gap", gap_hours=6.0)
        for one, other in zip(plain, frozen, strict=True):
            assert one.learn_until is not None
            assert other.requests.drop("statistics_at").equals(one.requests.drop("statistics_at"))
            assert other.part("train")["statistics_at"].equals(one.part("train")["statistics_at"])
            assert set(other.part("valid")["statistics_at"].to_physical()) == {one.learn_until - 6 * HOUR}
        assert [fold.protocol["validation"] for fold in (*plain, *frozen)] == ["temporal"] * 2 + ["gap"] * 2

    def test_requests_are_sampled(self) -> None:
        assert [len(fold.part("train")) for fold in self.folds(2, valid_days=0.5, train_requests=6)] == [6, 6]


class TestHeldOutRequests:
    def asked_for(self, log: Log, unseen: pl.DataFrame, **config: object) -> Split:
        return held_out_requests(log, store_of(log), SplitConfig(**config), unseen)  # type: ignore[arg-type]

    def of(self, items: Sequence[int]) -> pl.DataFrame:
        return BORDERS.filter(pl.col("item_id").is_in(items) & (pl.col("user_id") == 1))

    def test_only_unseen_clicks_with_a_history_are_asked_for(self) -> None:
        split = self.asked_for(log_of(BORDERS), self.of([10, 12, 16]))
        assert asked(split, "test") == [(1, instant(2 * DAY - MS), 12), (1, instant(4 * DAY - 30), 16)]
        assert split.requests["history_clicks"].to_list() == [2, 6]
        assert set(split.requests["split"]) == {"test"}
        assert split.protocol["test_requests"] == split.protocol["available_requests"] == 2

    def test_last_click_asks_only_for_the_last_after_the_one_before(self) -> None:
        split = self.asked_for(log_of(BORDERS), self.of([12, 16]), validation="last-click")
        assert asked(split, "test") == [(1, instant(3 * DAY + MS), 16)]

    def test_gap_freezes_statistics_before_the_first_hour(self) -> None:
        split = self.asked_for(log_of(BORDERS), self.of([14, 16]), validation="gap", gap_hours=2.0)
        assert set(split.requests["statistics_at"]) == {instant(3 * DAY - 60 - 120)}

    def test_limit_holds_and_nothing_unseen_is_an_empty_split(self) -> None:
        log = readers()
        assert len(self.asked_for(log, log.clicks, test_requests=11).requests) == 11
        nothing = self.asked_for(log, log.clicks.clear(), validation="gap")
        assert nothing.requests.is_empty()
        assert nothing.positives.is_empty()

    def test_held_out_users_are_not_asked_for(self) -> None:
        log = log_of(readers().clicks, held_out=[1, 2, 3])
        assert self.asked_for(log, log.clicks).requests["user_id"].min() == 4
