"""Stage 3: recall. `CHANNELS` is the one list of channels: adding one is its own file and a line here."""

from collections.abc import Callable
from typing import Final

from newsrec.recall.base import Channel, RecallRequests, RecallSettings
from newsrec.recall.itemcf import ItemCF
from newsrec.recall.popular import Popular

CHANNELS: Final[dict[str, Callable[[], Channel]]] = {
    "itemcf": ItemCF,
    "popular": Popular,
}

__all__ = ["CHANNELS", "Channel", "RecallRequests", "RecallSettings"]
