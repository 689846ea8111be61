"""How sure a figure is, where it comes from, and whether two runs may be compared at all.

In go the rows of `newsrec.metrics.per_request`; out come intervals, paired differences, slices and the sentence that
says what was measured. Called by training, `evaluate`, the experiments and the report.
"""

from newsrec.evaluation.comparison import Difference, paired_comparison
from newsrec.evaluation.intervals import Interval, bootstrap_interval, metric_intervals
from newsrec.evaluation.protocol import protocol_line
from newsrec.evaluation.slices import SLICES, slices

__all__ = [
    "SLICES",
    "Difference",
    "Interval",
    "bootstrap_interval",
    "metric_intervals",
    "paired_comparison",
    "protocol_line",
    "slices",
]
