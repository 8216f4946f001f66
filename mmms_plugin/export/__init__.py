"""``mmms export``: a model as one file for other engines, checked in the engine that reads it."""
