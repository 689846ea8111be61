"""`report.html` of a run: `metrics.json` goes in, one page comes out that opens offline, with no script and no URL."""

from newsrec.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
