"""Object sizes: the bins, and what a data set alone says about them."""
