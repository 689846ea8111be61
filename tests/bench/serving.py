"""How long one request takes: recall, features and ranking together, through `Recommender.recommend`."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from newsrec.serve import Recommender
from newsrec.train import TrainConfig, train

REQUESTS = 200


def run(data: Path | None) -> Iterator[str]:
    """Latency of single requests at the end of the log, against the time per request of one large batch."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(data=data, out=Path(folder) / "run", params={"trees": 100}, refit=False)
        train(config)
        began = time.perf_counter()
        recommender = Recommender.load(Path(folder) / "run")
        users = recommender.store.users.sample(REQUESTS, seed=0)
        recommender.recommend(users[0])
        first = time.perf_counter() - began
        spent = []
        for user in users:
            start = time.perf_counter()
            recommender.recommend(user)
            spent.append(time.perf_counter() - start)
        start = time.perf_counter()
        many = recommender.store.users.sample(min(20_000, len(recommender.store.users)), seed=1)
        recommender.recommend_many(recommender.requests(many, recommender.known_until))
        batch = (time.perf_counter() - start) / len(many)
    median, p99 = np.quantile(spent, [0.5, 0.99]) * 1000
    yield (
        f"load and first answer {first:.1f} s; then median {median:.1f} ms, p99 {p99:.1f} ms a request; in a batch of "
        f"{len(many):,} {batch * 1000:.2f} ms, ratio {median / batch / 1000:.0f}"
    )
