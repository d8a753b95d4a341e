"""`report.html`: all results of a run on one page."""

from keras_distil.runs.report.page import make_page, write_page

__all__ = ["make_page", "write_page"]
