"""AP by size: speed beside other evaluators, and whether intervals hold the truth."""
