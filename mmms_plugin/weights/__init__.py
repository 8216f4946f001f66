"""Foreign checkpoints: key-map tables (data), the loop that applies them, verification, catalog, release."""
