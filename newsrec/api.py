"""The public Python API: one function per verb, the recommender, metrics. Everything here stays; the rest may move.

Tables go in as Polars or pandas frames and come out as Polars.
"""

from newsrec.audit import AuditConfig, AuditResult, audit
from newsrec.data import Log, ReadOptions, log_from_frames, read_log, write_log
from newsrec.errors import BundleError, DataError, NewsrecError, UsageError
from newsrec.evaluate import EvaluateConfig, compare, evaluate
from newsrec.evaluation import bootstrap_interval, paired_comparison, protocol_line, slices
from newsrec.inspect import artefacts, inspect_log
from newsrec.metrics import METRICS, logloss, per_request, rank_within, summarise
from newsrec.recommend import RecommendConfig, recommend
from newsrec.report import render_report, write_report
from newsrec.serve import Recommender
from newsrec.simulate import SimulationConfig, simulate, write_simulation
from newsrec.split import SplitConfig, rolling_folds, split_log
from newsrec.train import TrainResult, train
from newsrec.train_config import TrainConfig
from newsrec.update import UpdateConfig, UpdateResult, update

__all__ = [
    "METRICS",
    "AuditConfig",
    "AuditResult",
    "BundleError",
    "DataError",
    "EvaluateConfig",
    "Log",
    "NewsrecError",
    "ReadOptions",
    "RecommendConfig",
    "Recommender",
    "SimulationConfig",
    "SplitConfig",
    "TrainConfig",
    "TrainResult",
    "UpdateConfig",
    "UpdateResult",
    "UsageError",
    "artefacts",
    "audit",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "inspect_log",
    "log_from_frames",
    "logloss",
    "paired_comparison",
    "per_request",
    "protocol_line",
    "rank_within",
    "read_log",
    "recommend",
    "render_report",
    "rolling_folds",
    "simulate",
    "slices",
    "split_log",
    "summarise",
    "train",
    "update",
    "write_log",
    "write_report",
    "write_simulation",
]
