"""Graphs of onnxruntime."""
