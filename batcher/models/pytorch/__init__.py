"""The formats that PyTorch runs: Python classes, TorchScript, exported and compiled programs."""
