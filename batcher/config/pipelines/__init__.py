"""What a `model.yaml` of format `pipeline` may hold: its steps, and the conditions of steps."""
