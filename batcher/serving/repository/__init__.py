"""The models on disk: what is there, and which of it is served."""
