"""From the sizes of a data set's objects and a detector's geometry to what should be changed, and why."""
