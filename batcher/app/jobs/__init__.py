"""`batcher run`: a file through a model, without a server or through one that runs."""
