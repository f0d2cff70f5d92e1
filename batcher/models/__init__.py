"""What a model is, and how a model of each format is loaded, warmed up and checked.

The module of a format is imported when the first model of that format is loaded: PyTorch takes
seconds to import, and a server without PyTorch models need not have PyTorch.
"""
