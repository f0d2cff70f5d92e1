"""Models that PyTorch runs: Python classes, TorchScript, exported programs, compiled packages.

Each format is a subclass of `TorchModule`, but for Python classes with `predict`:

    module            base class of the formats: device, stream, staging, compiling
    python_class      format `python`; its modules are imported by `version_code`
    torchscript       format `torchscript`
    export            format `export`
    aoti              `compile: aoti`; `aoti_program` compiles, `aoti_run` runs
    staging, tensors  buffers for inputs; arrays to tensors and back
"""
