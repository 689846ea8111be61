"""The public Python API: one function per verb, the recommender, metrics. Everything here stays; the rest may move.

Tables go in as Polars or pandas frames and come out as Polars.
"""

from newsrec.audit import AuditConfig, AuditResult, audit
from newsrec.calibration import calibration_figures, unsampled
from newsrec.data import Log, ReadOptions, log_from_frames, read_log, write_log
from newsrec.diversity import Diversity
from newsrec.errors import BundleError, DataError, NewsrecError, UsageError
from newsrec.evaluate import EvaluateConfig, compare, evaluate
from newsrec.evaluation import bootstrap_interval, first_place, off_policy, paired_comparison, protocol_line, slices
from newsrec.experiment.config import ExperimentConfig
from newsrec.experiment.run import ExperimentResult, run_experiment
from newsrec.inspect import artefacts, inspect_log
from newsrec.metrics import METRICS, logloss, per_request, rank_within, summarise
from newsrec.recommend import RecommendConfig, recommend
from newsrec.report import render_report, write_report
from newsrec.serve import Recommender
from newsrec.simulate import SimulationConfig, simulate, true_click_rate, write_simulation
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
    "Diversity",
    "EvaluateConfig",
    "ExperimentConfig",
    "ExperimentResult",
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
    "calibration_figures",
    "compare",
    "evaluate",
    "first_place",
    "inspect_log",
    "log_from_frames",
    "logloss",
    "off_policy",
    "paired_comparison",
    "per_request",
    "protocol_line",
    "rank_within",
    "read_log",
    "recommend",
    "render_report",
    "rolling_folds",
    "run_experiment",
    "simulate",
    "slices",
    "split_log",
    "summarise",
    "train",
    "true_click_rate",
    "unsampled",
    "update",
    "write_log",
    "write_report",
    "write_simulation",
]
