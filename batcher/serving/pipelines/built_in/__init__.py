"""The built-in steps of pipelines, one class each; `table.py` lists them."""
