"""Channels that learn from who read what: against loops over plain lists, and each of their weights by hand."""

from collections.abc import Callable
from math import log, sqrt
from typing import Any

import polars as pl
import pytest

from features.columns import TIME
from features.events import EventStore
from newsrec.recall import Channel, RecallRequests, RecallSettings, dense, swing
from newsrec.recall.binetwork import BiNetwork, BiNetworkParams
from newsrec.recall.swing import Swing, SwingParams
from newsrec.recall.usercf import UserCF, UserCFParams
from tests.factories import IDS, SHALLOW, clicks_of, log_of, ms, recalled, requests_for, requests_of, small_log
from tests.oracle import Truth, requests

CASES: list[tuple[str, Callable[[Any], Channel], Any]] = [
    ("binetwork", BiNetwork, BiNetworkParams()),
    ("binetwork", BiNetwork, BiNetworkParams(window_hours=20, per_user=5, popularity_power=0.5, neighbours=3)),
    ("swing", Swing, SwingParams()),
    ("swing", Swing, SwingParams(window_hours=30, alpha=0, per_user=8, per_item=6, history=2, neighbours=4)),
    ("usercf", UserCF, UserCFParams()),
    ("usercf", UserCF, UserCFParams(window_hours=30, per_user=4, per_item=2, history=2, history_decay=0.9)),
]
IDS_OF_CASES = [f"{name}-{'default' if params == type(params)() else 'narrow'}" for name, _, params in CASES]


@pytest.mark.parametrize("stale", [0, 200])
@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize(("name", "make", "params"), CASES, ids=IDS_OF_CASES)
def test_lists_equal_a_loop(name: str, make: Callable[[Any], Channel], params: Any, ids: str, stale: float) -> None:
    log = small_log(1, ids)
    asked = requests_for(log, 30, stale_minutes=stale)
    store, truth = EventStore(log.clicks, log.articles), Truth(log)
    found = make(params).fit(store, SHALLOW).recall(RecallRequests.of(asked, store))
    lengths = []
    for row, request in enumerate(requests(asked)):
        own = found.filter(pl.col("row") == row)
        expected = getattr(truth, name)(request, SHALLOW, params)
        assert store.items.gather(own["item"]).to_list() == [item for item, _ in expected]
        assert own["score"].to_list() == pytest.approx([score for _, score in expected], rel=1e-6, abs=1e-9)
        lengths.append(len(expected))
    assert max(lengths) >= 2


def scores(channel: Channel, rows: list[tuple[int, int, float]], at: float = 60.0) -> dict[int, float]:
    """What user 9 is proposed at that minute, with its score."""
    log = log_of(clicks_of(rows))
    store = EventStore(log.clicks, log.articles)
    found = channel.fit(store, SHALLOW).recall(RecallRequests.of(requests_of([(9, at, at)]), store))
    return dict(zip(store.items.gather(found["item"]).to_list(), found["score"].to_list(), strict=True))


class TestBiNetwork:
    def test_attention_is_spread_evenly_twice(self) -> None:
        """7 has three readers, the asking one included; reader 1 read two articles, reader 2 three."""
        rows = [(1, 7, 0.0), (1, 8, 1.0), (2, 7, 0.0), (2, 8, 1.0), (2, 6, 2.0), (9, 7, 3.0)]
        found = scores(BiNetwork(), rows)
        assert found[8] == pytest.approx((1 / 2 + 1 / 3) / 3, rel=1e-5)
        assert found[6] == pytest.approx((1 / 3) / 3, rel=1e-5)

    def test_popular_target_is_held_back_if_told_to(self) -> None:
        rows = [(1, 7, 0.0), (1, 8, 1.0), (9, 7, 3.0), *((user, 8, 1.0) for user in (20, 21, 22))]
        held = scores(BiNetwork(BiNetworkParams(popularity_power=0.5)), rows)
        assert held[8] == pytest.approx(scores(BiNetwork(), rows)[8] / 2, rel=1e-6)


class TestSwing:
    def test_pair_of_readers_closes_a_swing_and_one_reader_none(self) -> None:
        rows = [(1, 7, 0.0), (1, 8, 1.0), (2, 7, 0.0), (2, 8, 1.0), (2, 6, 2.0), (9, 7, 3.0)]
        found = scores(Swing(), rows)
        assert found == {8: pytest.approx(1 / sqrt(2 * 3) / (1 + 2), rel=1e-5)}

    def test_readers_who_share_much_say_less(self) -> None:
        """1 and 2 share three articles, 3 and 4 two, all of them having read three."""
        close = [(user, item, 0.0) for user in (1, 2) for item in (7, 8, 5)]
        far = [(user, item, 0.0) for user in (3, 4) for item in (7, 6, 30 + user)]
        found = scores(Swing(), [*close, *far, (9, 7, 3.0)])
        assert found[8] == pytest.approx(1 / 3 / (1 + 3), rel=1e-5)
        assert found[6] == pytest.approx(1 / 3 / (1 + 2), rel=1e-5)

    def test_only_the_last_readers_make_pairs(self) -> None:
        rows = [(user, item, float(user)) for user in (1, 2, 3) for item in (7, 8)] + [(9, 7, 9.0)]
        assert scores(Swing(SwingParams(per_item=3)), rows)[8] == pytest.approx(1 / 2 / 3, rel=1e-5)  # 2 and 3
        assert scores(Swing(SwingParams(per_item=4)), rows)[8] == pytest.approx(3 / 2 / 3, rel=1e-5)


class TestUserCF:
    def test_reader_of_the_same_proposes_by_activity_rarity_and_age(self) -> None:
        """At minute 60 reader 1 has read two articles, the asking one; 8 a half-life and 7 two ago."""
        params = UserCFParams(half_life_hours=0.5, per_user=4)
        found = scores(UserCF(params), [(1, 8, 30.0), (1, 7, 0.0), (9, 7, 3.0)], 60.0)
        similarity = (1 + 2) / 2 / 4 / sqrt(1 * 2) / log(1 + 2)
        assert found == {8: pytest.approx(similarity / 2, rel=1e-3)}

    def test_user_is_no_guide_of_their_own(self) -> None:
        assert scores(UserCF(), [(9, 7, 0.0), (9, 8, 1.0)]) == {}

    def test_only_the_last_readers_propose(self) -> None:
        rows = [(1, 7, 0.0), (1, 6, 1.0), (2, 7, 2.0), (2, 8, 3.0), (9, 7, 0.0)]
        assert set(scores(UserCF(UserCFParams(per_item=1)), rows)) == {8}
        assert set(scores(UserCF(UserCFParams(per_item=3)), rows)) == {6, 8}  # 9 is one of them

    def test_table_lists_what_each_reader_proposes(self) -> None:
        store = EventStore(clicks_of([(2, 7, 0.0), (1, 7, 0.0), (1, 8, 1.0)]), pl.DataFrame({"item_id": [3]}))
        table = UserCF().fit(store, RecallSettings()).table(ms(35))
        assert table.select("user_id", "item_id").rows() == [(1, 8), (1, 7), (2, 7)]
        assert table["score"][0] == pytest.approx(2 ** (-29 / 120), abs=1e-4)


@pytest.mark.parametrize(("name", "module", "limit"), [("usercf", dense, "CELLS"), ("swing", swing, "PAIRS_AT_ONCE")])
def test_pieces_do_not_change_a_bit(name: str, module: Any, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = small_log(6)
    asked = requests_for(log)
    asked = pl.concat([asked, asked.with_columns(requested_at=pl.lit(asked["requested_at"].max(), TIME))])
    whole = recalled(log, name, asked)
    monkeypatch.setattr(module, limit, 2)
    assert recalled(log, name, asked).equals(whole)
