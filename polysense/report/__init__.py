"""Reports of a run and of a table made from another: each one HTML file that opens offline."""

from polysense.report.page import write_report
from polysense.report.tables import write_table_report

__all__ = ["write_report", "write_table_report"]
