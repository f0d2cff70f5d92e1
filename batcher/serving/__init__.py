"""Which model answers: names, versions, lives of models, and the stages before a queue."""
