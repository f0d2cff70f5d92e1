"""Which model answers: names and versions, their lives, and what happens to a request before its queue."""
