"""The slow truth: windows, features, recall and fusion in loops over plain lists, written from what the words mean.

Nothing here shares a line with the code it checks; constants of the channels are taken from their parameters.
"""

from tests.oracle.describing import DescribingTruth
from tests.oracle.features import FeatureTruth
from tests.oracle.log import clicks, count, requests
from tests.oracle.recall import fuse

__all__ = ["Truth", "clicks", "count", "fuse", "requests"]


class Truth(FeatureTruth, DescribingTruth):
    """Slow answers about one log."""
