"""The test kit: what `batcher check --model` does with a model before anybody else does."""
