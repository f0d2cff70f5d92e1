"""Models that PyTorch runs: Python classes, TorchScript, exported programs, compiled packages.

Each format is a subclass of `TorchModule`, but for Python classes with `predict`:

    module            base class of the formats: device, stream, staging, compiling
    python_class      format `python`; its modules are imported by `version_code`
    torchscript       format `torchscript`
    export            format `export`; `archive_*` and `operators` look for code in its archives,
                      `export_inputs` and `batch_sizes` fit inputs and batches to its programs
    aoti              `compile: aoti`; `aoti_packages` says which package is used, `aoti_program`
                      compiles, `aoti_run` runs (with `shared_library`)
    gpu, graphs       what is asked of a GPU; `cuda_graphs`
    comparing         whether a compiled module, or a graph, answers as the module does
    precision         `dtype`, `autocast`, `channels_last`
    inductor          `compile: inductor`
    input_order       which input is which parameter of `forward`
    staging, tensors  buffers for inputs; arrays to tensors and back
"""
