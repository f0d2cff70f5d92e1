"""The Open Inference Protocol version 2 as bytes: JSON and binary tensors, both ways."""
