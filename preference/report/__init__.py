"""One page about a run of learning from preferences: what was asked, what was learnt, and what it looks like."""

from preference.report.page import write_report

__all__ = ["write_report"]
