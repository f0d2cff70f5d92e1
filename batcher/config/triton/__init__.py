"""Triton's `config.pbtxt`, read in the place of a `model.yaml`.

    text_format    the fields of the file, each with its line
    fields         what becomes of a field: mapped, noted as without meaning here, or refused
    tensors        input, output and model_warmup, which `model.yaml` would say
    running        what `models.NAME` of config.yaml would say
    model_config   all of a file together

The text format is read here and not by the library protobuf: that one is an extra, and keeps no
lines of fields, which every message about a file must name.
"""
