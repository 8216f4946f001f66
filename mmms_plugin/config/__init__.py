"""Find, edit, check and fit a config of a host."""
