"""Settings: `config.yaml` and `model.yaml` become typed, frozen values.

- `reading` turns text into plain values that remember the line each was written on.
- `settings` (with `model_settings` and `quota`) says what `config.yaml` may hold.
- `model_file` says what `model.yaml` may hold.
- `changes` says which settings a reload may change.

A wrong value is a `ConfigError` that names file, line and setting, what was expected and what came.
"""
