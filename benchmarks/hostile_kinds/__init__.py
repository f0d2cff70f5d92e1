"""What hostile clients do, one kind an entry: bodies, answers, heads and gRPC at their worst."""
