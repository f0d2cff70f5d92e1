"""Settings: `config.yaml` and `model.yaml` to typed, frozen values.

`reading` turns text into plain values that remember their line, `settings` says what `config.yaml`
may hold, `model_file` what `model.yaml` may hold, and `repository` finds the models on disk. A bad
value is a `ConfigError` that names file, line, setting, what was expected and what came.
"""
