"""Stage 6: ranking. `RANKERS` is the one list of rankers: adding one is its own file and a line here."""

from typing import Final

from newsrec.rankers.base import Fitting, Ranker, RankingData
from newsrec.rankers.lgbm import LgbmRanker

RANKERS: Final[dict[str, type[Ranker]]] = {"lgbm": LgbmRanker}

__all__ = ["RANKERS", "Fitting", "Ranker", "RankingData"]
