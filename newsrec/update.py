"""A bundle rolled forward to a newer log without training: the same model, knowing more; and how far the log has moved.

`python -m newsrec.update` and the library function `update` do the same. The old bundle stays as it is.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from features.columns import CLICK_KEY, DAY, TIME
from features.events import EventStore
from newsrec.bundle import MANIFEST, refuse_unwritable, write_json, write_manifest, writing
from newsrec.data import Log, ReadOptions, read_log
from newsrec.drift import described_sample, drift_page, drift_table, events_per_day
from newsrec.errors import DataError, UsageError
from newsrec.neural.tower_file import write_user_tower
from newsrec.progress import Progress, Silent
from newsrec.recall import CHANNELS, RecallSettings
from newsrec.serve import Recommender
from newsrec.state import FOLDERS, Memory, known_keys, write_state

DRIFT: Final = "drift.json"
LIST: Final = ["request_id", "requested_at"]
OF_THE_WRITER: Final = ("format_version", "created_at", "newsrec", "packages", "files")
"""Facts of a manifest that are those of whoever writes it."""


@dataclass(frozen=True)
class UpdateConfig:
    """Which bundle, and which newer log."""

    run: Path
    data: Path
    out: Path
    """Folder of the new bundle."""
    format: str = "auto"
    overwrite: bool = False
    read: ReadOptions = ReadOptions()
    features: Path | None = None
    """The file of own features that the bundle was trained with."""
    keep_days: int | None = None
    """The new state keeps events of so many days whole; None as many as the old one."""


@dataclass(frozen=True)
class UpdateResult:
    """The new bundle."""

    run: Path
    updated_from: dict[str, Any]
    """As in the manifest: the old run, its last event and the new one, and how many events are new."""
    drift: dict[str, Any]
    """As in `drift.json`."""

    @property
    def table(self) -> pl.DataFrame:
        """The drift of each feature, the largest first, see `newsrec.drift.drift_table`."""
        return pl.DataFrame(self.drift["features"], infer_schema_length=None)

    def lines(self) -> list[str]:
        """The result in words."""
        days = self.drift["events_per_day"]
        rates = [
            f"{name} per day: {days['old'][name]:,.0f} before, {days['new'].get(name, 0):,.0f} since"
            for name in days["old"]
        ]
        drifted = self.drift["drifted"]
        moved = f"{len(drifted)} of {len(self.drift['features'])} features drifted (PSI over {self.drift['psi_limit']})"
        return [
            *rates,
            f"{moved}: {', '.join(drifted)}" if drifted else moved,
            f"new events: {self.updated_from['new_events']:,}",
        ]


def update(config: UpdateConfig, progress: Progress | None = None, *, log: Log | None = None) -> UpdateResult:
    """Write a new bundle whose state knows a newer log.

    Data that starts after the bundle's last event continues its state; data that overlaps it is rebuilt from its own
    log; an event known to both counts once (as `Recommender.with_log`). Models, vocabulary, parameters and the figures
    of the training are kept.

    Args:
        config: Bundle, log, folder.
        progress: Told of stages; None is silent.
        log: A log that is already in memory; None reads `config.data`.

    Raises:
        NewsrecError: A damaged bundle, bad data, a log without a new event, or a place that cannot be written; nothing
            is left behind.
    """
    tell = progress or Silent()
    if config.out.resolve() == config.run.resolve():
        raise UsageError(f"--out: expected another folder than --run, found '{config.out}'. Bundles are never changed.")
    refuse_unwritable(config.out, config.overwrite)
    old = Recommender.load(config.run, config.features)
    memory = Memory.of_bundle(old.manifest, config.keep_days)
    log = read_log(config.data, config.format, options=config.read) if log is None else log
    new = _rolled(old, log)
    facts = _updated_from(config, old, new, log)
    with tell.stage("drift", 2) as step:
        drift = _drift(old, new, step)
    recall = old.manifest["recall"]
    settings = RecallSettings(**recall["settings"])
    channels = {name: CHANNELS[name]().fit(new.store, settings) for name in recall["channels"]}
    with writing(config.out, config.overwrite) as folder:
        _copy(config.run, folder, old.manifest)
        known_until = write_state(folder, memory.folded(new.store), channels)
        write_user_tower(folder, channels, known_until, tell.say)
        write_json(folder / DRIFT, drift)
        kept = {name: fact for name, fact in old.manifest.items() if name not in OF_THE_WRITER}
        write_manifest(folder, {**kept, "state": memory.facts(), "updated_from": facts})
    return UpdateResult(config.out, facts, drift)


def _rolled(old: Recommender, log: Log) -> Recommender:
    """The recommender over the newer log, its articles told as `observe` tells them: a null leaves what was known."""
    rolled = old.with_log(log.clicks, log.articles, log.impressions)
    both = pl.concat([old.store.articles, log.articles], how="diagonal_relaxed")
    articles = both.group_by("item_id", maintain_order=True).agg(pl.all().drop_nulls().last()).sort("item_id")
    store = EventStore(rolled.store.clicks, articles, rolled.store.impressions, rolled.store.folded)
    return Recommender(old.manifest, old.ranker, old.vocabulary, store, old.own, old.reranker, old.calibrator)


def _updated_from(config: UpdateConfig, old: Recommender, new: Recommender, log: Log) -> dict[str, Any]:
    known = known_keys(new.store.clicks, old.store.clicks, CLICK_KEY, old.store)
    clicks = new.store.clicks.join(known, on=list(CLICK_KEY), how="anti").height
    lists = _new_lists(old.store, new.store)
    if not clicks and not lists:
        raise DataError(
            f"--data {config.data}: expected events that the bundle '{config.run}' does not know, found none. "
            "Give a later log."
        )
    return {
        "run": config.run.name,
        "old_last_event": _moment(old.known_until - 1),
        "new_last_event": _moment(new.known_until - 1),
        "new_events": clicks + lists,
        "new_clicks": clicks,
        "new_lists": lists,
        "data": {"path": str(config.data.resolve()), "format": log.format, "fingerprint": log.fingerprint},
    }


def _new_lists(old: EventStore, new: EventStore) -> int:
    """Shown lists that only the new store has."""
    if new.impressions is None:
        return 0
    known = known_keys(new.impressions, old.impressions, LIST, old)
    return len(new.impressions.select(LIST).unique().join(known, on=LIST, how="anti"))


def _moment(ms: int) -> str:
    return str(pl.Series([ms]).cast(TIME)[0].isoformat())


def _drift(old: Recommender, new: Recommender, step: Any) -> dict[str, Any]:
    """The days before the old last event against the time since; as long as that, a day at least, if not folded."""
    border, end = old.known_until, new.known_until
    earliest = max(border - max(end - border, DAY), old.answers_from or 0)
    periods = {"old": (earliest, border), "new": (border, end)}
    seed = int(old.manifest["seed"])
    found = {}
    for (name, (since, until)), recommender in zip(periods.items(), (old, new), strict=True):
        found[name] = described_sample(recommender, since, until, seed)
        step(1)
    features = new.assembly(new.requests(new.store.users[:1], end)).features
    table = drift_table(found["old"][0], found["new"][0], features)
    stores = {"old": old.store, "new": new.store}
    per_day = {name: events_per_day(stores[name], *period) for name, period in periods.items()}
    return drift_page(table, {name: n for name, (_, n) in found.items()}, per_day)


def _copy(run: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """All files of a checked bundle but those that are made anew."""
    for name in manifest["files"]:
        if Path(name).parts[0] not in (*FOLDERS, DRIFT, MANIFEST):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, folder / name)


if __name__ == "__main__":
    from newsrec.cli import run_verb

    run_verb("update")
