"""Tiles of large pictures: where they lie, what of a picture's objects they hold, and how their predictions merge."""
