"""`python -m newsrec.experiment`: the same as `newsrec experiment`."""

from newsrec.cli import run_verb

run_verb("experiment")
