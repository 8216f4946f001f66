"""The one kit of tables, figures and pages."""
