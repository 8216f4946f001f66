"""Damaged input from a seed; ``python -m tests.fuzz.NAME --seed S --count N`` runs as much as wanted."""
