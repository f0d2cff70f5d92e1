"""Format `onnx`: graphs that onnxruntime runs (extra `onnx`).

`session.py` opens a graph, `binding.py` says which tensor of the specification is which of the
graph, `values.py` turns arrays into what a graph takes and back, and `model.py` runs batches.
"""
