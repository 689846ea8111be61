"""Stage 3: recall. `CHANNELS` is the one list of channels: adding one is its own file and a line here."""

from collections.abc import Callable
from typing import Final

from features.columns import MINUTE
from newsrec.errors import UsageError
from newsrec.recall.base import Channel, RecallRequests, RecallSettings
from newsrec.recall.itemcf import ItemCF
from newsrec.recall.popular import Popular

CHANNELS: Final[dict[str, Callable[[], Channel]]] = {
    "itemcf": ItemCF,
    "popular": Popular,
}

DEFAULT_CHANNELS: Final = ("itemcf", "popular")
"""Where candidates come from recall and nobody names channels."""


def settings_of(refresh_minutes: float, list_length: int) -> RecallSettings:
    """Settings from what a person says.

    Raises:
        UsageError: A refresh that is not above zero.
    """
    if not refresh_minutes > 0:
        raise UsageError(f"--recall-refresh: expected minutes above zero, found {refresh_minutes:g}.")
    return RecallSettings(refresh_ms=max(1, round(refresh_minutes * MINUTE)), depth=max(1, list_length))


__all__ = ["CHANNELS", "DEFAULT_CHANNELS", "Channel", "RecallRequests", "RecallSettings", "settings_of"]
