"""What folding saves and costs: rows, bytes, time to load and to rank, of one state whole and folded."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from features.events import EventStore
from newsrec.data import read_log
from newsrec.recall import RecallSettings
from newsrec.serve import Recommender
from newsrec.simulate import SimulationConfig, simulate
from newsrec.split import SplitConfig
from newsrec.state import Memory, read_state, write_state
from newsrec.train import train
from newsrec.train_config import TrainConfig
from tests.bench.serving import LIST, lists_of_late, spread

LONG = SimulationConfig(users=6_000, days=28, clicks_per_user=16.0)
KEPT = (None, 7, 3)
REQUESTS = 300


def run(data: Path | None) -> Iterator[str]:
    """The log's whole state against the same with events of a week and of three days."""
    log = simulate(LONG).log if data is None else read_log(data)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "run"
        split = SplitConfig(train_requests=10_000, valid_requests=2_000, test_requests=1_000)
        train(TrainConfig(out=bundle, params={"trees": 100, "patience": 100}, split=split), log=log)
        trained = Recommender.load(bundle)
        whole = EventStore(log.clicks, log.articles, log.impressions)
        users = whole.users.sample(min(REQUESTS, len(whole.users)), seed=0).to_list()
        lists = lists_of_late(trained, len(users))
        expected = None
        for days in KEPT:
            start = time.perf_counter()
            store = Memory.of(days, RecallSettings()).folded(whole)
            folding, path = time.perf_counter() - start, Path(folder) / str(days)
            path.mkdir()
            write_state(path, store, {})
            start = time.perf_counter()
            manifest = {**trained.manifest, "state": {"keep_days": days}}
            recommender = Recommender(manifest, trained.ranker, trained.vocabulary, read_state(path))
            recommender.rank(users[0], lists[0])
            ready = time.perf_counter() - start
            ranking = [partial(recommender.rank, u, i) for u, i in zip(users, lists, strict=True)]
            took = spread(ranking)
            answers = [ask().tobytes() for ask in ranking]
            expected = expected or answers
            assert answers == expected, "folding changed a score"
            kept = "all" if days is None else days
            yield (
                f"{kept} days kept: {_rows(recommender.store)}; on disk {_disk(path):.1f} MB, in memory "
                f"{_memory(recommender.store):.0f} MB; folded in {folding:.1f} s, loaded and asked once in "
                f"{ready:.1f} s; rank {LIST} articles {took}"
            )


def _rows(store: EventStore) -> str:
    held = {name: len(table) for name, table in store.tables.items()}
    held |= {name: len(frame) for name, frame in store.past.items() if "pairs" in name}
    return ", ".join(f"{name} {rows:,}" for name, rows in held.items())


def _disk(path: Path) -> float:
    """Megabytes of events; articles are the same in all."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and p.name != "articles.parquet") / 1e6


def _memory(store: EventStore) -> float:
    """Megabytes of frames, tables, indices that ranking has built, and what is added up."""
    frames = [store.clicks, *([] if store.impressions is None else [store.impressions]), *store.past.values()]
    arrays = [column for table in store.tables.values() for column in table.rows(0).values()]
    for index in store._indices.values():
        for segment in index._segments:
            arrays += [segment._packed, *segment._running.values()]
    return (sum(int(frame.estimated_size()) for frame in frames) + sum(a.nbytes for a in arrays)) / 1e6
