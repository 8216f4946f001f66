"""Offline analysis: numbers from predictions and weights, and the figures and pages that show them."""
