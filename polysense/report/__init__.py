"""A run's report: one HTML file that opens offline."""

from polysense.report.page import write_report

__all__ = ["write_report"]
