"""Files as they are, here recordings: batcher serve examples/models/recording.py."""

import io
import wave

import batcher
from batcher.errors import InvalidInput


@batcher.model(inputs={"file": "BYTES"}, outputs={"seconds": "FP64"})
class Recording:
    def predict(self, inputs):
        return {"seconds": [self.seconds(file) for file in inputs["file"]]}

    def seconds(self, file):
        try:
            with wave.open(io.BytesIO(file)) as recording:
                return recording.getnframes() / recording.getframerate()
        except (wave.Error, EOFError) as err:
            return InvalidInput(f"file: expected a WAV; got something else: {err}")
