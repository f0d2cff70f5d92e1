"""Several processes that take connections, and one that holds the models."""
