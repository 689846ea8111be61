"""How sure a figure is, where it comes from, and whether two runs may be compared at all.

In go the rows of `newsrec.metrics.per_request`; out come intervals, paired differences, slices and the sentence that
says what was measured. Logged decisions go into `off_policy`, and out comes what another policy would have earned.
Called by training, `evaluate`, the experiments and the report.
"""

from newsrec.evaluation.comparison import Difference, paired_comparison
from newsrec.evaluation.first_place import first_place
from newsrec.evaluation.intervals import Interval, bootstrap_interval, metric_intervals
from newsrec.evaluation.offpolicy import ESTIMATORS, Estimate, off_policy
from newsrec.evaluation.protocol import protocol_line
from newsrec.evaluation.slices import SLICES, slices

__all__ = [
    "ESTIMATORS",
    "SLICES",
    "Difference",
    "Estimate",
    "Interval",
    "bootstrap_interval",
    "first_place",
    "metric_intervals",
    "off_policy",
    "paired_comparison",
    "protocol_line",
    "slices",
]
