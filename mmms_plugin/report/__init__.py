"""The kit for all reports: tables, figures, drawings, and a page with a gallery."""

FIGURES = ("svg", "png", "pdf")  # formats
