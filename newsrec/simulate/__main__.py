"""`python -m newsrec.simulate`: the same as `newsrec simulate`."""

from newsrec.cli import run_verb

run_verb("simulate")
