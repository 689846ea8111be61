"""`python -m newsrec.report`."""

from newsrec.cli import run_verb

run_verb("report")
