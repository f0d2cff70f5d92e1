"""TensorFlow's SavedModel: a folder with `saved_model.pb` and `variables`.

signatures    what the file says of its signatures, read without TensorFlow
definition    inputs and outputs of a signature, which `model.yaml` need not list
"""
