"""Stage 3: recall. `CHANNELS` is the one list of channels: adding one is its own file and a line here."""

from collections.abc import Callable, Iterable
from typing import Final

from features.columns import MINUTE
from features.events import EventStore
from newsrec.errors import UsageError
from newsrec.recall.base import Channel, RecallRequests, RecallSettings
from newsrec.recall.binetwork import BiNetwork
from newsrec.recall.content import Content
from newsrec.recall.fresh import Fresh
from newsrec.recall.item2vec import Item2Vec
from newsrec.recall.itemcf import ItemCF
from newsrec.recall.popular import Popular
from newsrec.recall.segment import Segment
from newsrec.recall.swing import Swing
from newsrec.recall.two_tower import TwoTower
from newsrec.recall.usercf import UserCF

CHANNELS: Final[dict[str, Callable[[], Channel]]] = {
    "itemcf": ItemCF,
    "popular": Popular,
    "usercf": UserCF,
    "swing": Swing,
    "binetwork": BiNetwork,
    "fresh": Fresh,
    "segment": Segment,
    "item2vec": Item2Vec,
    "content": Content,
    "two_tower": TwoTower,
}

DEFAULT_CHANNELS: Final = ("itemcf", "popular")
"""Where candidates come from recall and nobody names channels."""


ALL: Final = "all"
"""In the place of names: every channel that can work on the log."""


def lacking(channels: Iterable[str], store: EventStore) -> dict[str, str]:
    """The channels that cannot work on this log, and what each of them lacks."""
    found = {name: CHANNELS[name]().lacks(store) for name in channels}
    return {name: missing for name, missing in found.items() if missing is not None}


def working(store: EventStore, tell: Callable[[str], None] = lambda line: None) -> tuple[str, ...]:
    """All channels that can work on this log; `tell` hears of each that cannot."""
    without = lacking(CHANNELS, store)
    for name, missing in without.items():
        tell(f"recall {name} is left out: it needs {missing}")
    return tuple(name for name in CHANNELS if name not in without)


def refuse_lacking(channels: Iterable[str], store: EventStore) -> None:
    """For channels that somebody has named.

    Raises:
        UsageError: Unknown channels, or what the log lacks for them.
    """
    names = tuple(channels)
    unknown = sorted(set(names) - set(CHANNELS))
    if unknown:
        raise UsageError(f"--recall: expected channels of {sorted(CHANNELS)}, found {unknown}.")
    for name, missing in lacking(names, store).items():
        raise UsageError(f"--recall {name}: expected {missing}, found none. Leave {name} out, or give what it needs.")


def settings_of(refresh_minutes: float, list_length: int) -> RecallSettings:
    """Settings from what a person says.

    Raises:
        UsageError: A refresh that is not above zero.
    """
    if not refresh_minutes > 0:
        raise UsageError(f"--recall-refresh: expected minutes above zero, found {refresh_minutes:g}.")
    return RecallSettings(refresh_ms=max(1, round(refresh_minutes * MINUTE)), depth=max(1, list_length))


__all__ = [
    "ALL",
    "CHANNELS",
    "DEFAULT_CHANNELS",
    "Channel",
    "RecallRequests",
    "RecallSettings",
    "lacking",
    "refuse_lacking",
    "settings_of",
    "working",
]
