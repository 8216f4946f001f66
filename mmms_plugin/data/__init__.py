"""The user's own data sets: finding, reading, checking and mending them. No host is imported here."""
