"""Entry of `python -m newsrec.audit`."""

from newsrec.cli import run_verb

run_verb("audit")
