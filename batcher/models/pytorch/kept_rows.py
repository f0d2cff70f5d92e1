"""Rows that a module on a GPU keeps there for the next model of a pipeline, or takes from there.

    model A    outputs --> memory of the host --> answers    as always
               outputs --> copies on the device              `copies`, `note`: if a pipeline asks
    model B    copies  --> the rows of a batch               `place`, `joined`

No stream waits for another: model A's answers reach the loop after the host has waited for A's
stream, on which the copies were made before. So they are complete before model B hears of them.

A copy is freed when nobody holds on to it, nor to its rows on the host. Model B reads it in another
stream, and a batch holds on to its inputs until the host has waited for B's stream, so the memory
is not used again before. Refused: `record_stream`. The allocator would mark a point in B's stream
when it frees the copy, which on a lost device ends the process, as it does with pinned memory.

Copies are a gain and never a need. So they are bounded, and where memory is short there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from batcher.core.device_rows import InputsOnDevice, RowsOnDevice, note_twin
from batcher.core.spec import ModelSpec, TensorSpec
from batcher.models.kept_rows import Wish
from batcher.models.protocol import Arrays
from batcher.models.pytorch.tensors import is_dense

MAX_KEPT_BYTES: Final = 256 << 20
"""Bytes of copies of one instance: a batch of 64 rows of 4 MiB, as large as maps of features are.
Rows that nobody takes soon, since the next model is far behind, must not fill the device.
"""

PAUSE_BATCHES: Final = 1000
"""Batches without copies after one for which there was no memory. To find that out again would cost
the device a wait each time: PyTorch gives back all memory that it caches before it gives up.
"""

LEAST_PIECE_BYTES: Final = 16 << 10
"""Mean bytes of the pieces of a batch that are worth finding. The rows of requests that shared a
batch before lie in one piece; for each further one the thread works some microseconds, in which the
host copies about so many bytes.
"""

Tensors = dict[str, torch.Tensor]


class DeviceRows:
    """The kept rows of one module; see `KeptRows`.

    Attributes:
        device: the device of the module.
        takes: inputs that are taken from the device, where they lie there.
        placed: for the batch that is put together now: the pieces of each input that was found.
    """

    def __init__(self, device: torch.device, spec: ModelSpec, keeps: bool) -> None:
        """Keep and take nothing yet, and never keep anything without `keeps`. Inference thread.

        That is for a model with `postprocess`, whose outputs are made on the host, and for one with
        `memory_limit`, which knows nothing of what comes after the load.
        """
        self.device = str(device)
        self.takes: frozenset[str] = frozenset()
        self.placed: dict[str, list[torch.Tensor]] = {}
        self._keeps: frozenset[str] = frozenset()
        self._place = device
        self._inputs, self._outputs = _dtypes(spec.inputs), _dtypes(spec.outputs)
        self._most_bytes = MAX_KEPT_BYTES if keeps else 0
        # By arrays on the host; steps of the interpreter, as any thread may let go of an array.
        self._held: dict[int, int] = {}
        self._pause = 0

    def follow(self, wish: Wish) -> None:
        """Do what `wish` asks from the next batch on. Reactor thread."""
        is_of_use = self.device in wish.devices
        self._keeps = wish.keeps if is_of_use and self._most_bytes else frozenset()
        self.takes = wish.takes if is_of_use else frozenset()

    def copies(self, outputs: Mapping[str, Any], own: bool = False) -> Tensors:
        """Have those of `outputs` copied that are to be kept, and return the copies.

        The current stream copies. Outputs that are the batch's `own`, into which nobody writes
        again, are kept as they are. Raises nothing: what cannot be kept is not. Inference thread.
        """
        found: Tensors = {}
        if not self._keeps:
            return found
        if self._pause:
            self._pause -= 1
            return found
        try:
            room = self._most_bytes - sum(list(self._held.values()))
            for name in self._keeps:
                value: Any = outputs.get(name)
                if self._is_kept(name, value) and value.nbytes <= room:
                    room -= value.nbytes
                    found[name] = _flat(value, own)
        # No memory, most likely; whatever else it is, the batch itself will show.
        except RuntimeError:
            self._pause = PAUSE_BATCHES
            return {}
        return found

    def note(self, arrays: Arrays, copies: Tensors) -> None:
        """Have `copies` found by the rows of `arrays`, which have the same values on the host.

        The copies are complete. Inference thread.
        """
        for name, copy in copies.items():
            array = arrays[name]
            if array.nbytes == copy.nbytes and array.itemsize == copy.element_size():
                self._held[id(array)] = copy.nbytes
                if not note_twin(array, copy, self.device, self._forget):
                    self._forget(id(array))

    def place(self, name: str, parts: Sequence[Any]) -> bool:
        """Find the rows of the input `name` of all `parts`; as in KeptRows. Inference thread."""
        if name not in self.takes:
            return False
        runs: list[tuple[torch.Tensor, int, int]] = []  # what lies in one piece: first, behind last
        nbytes = 0
        for part in parts:
            inputs = part.inputs
            twin = inputs.twins.get(name) if isinstance(inputs, InputsOnDevice) else None
            if twin is None or not self._is_taken(name, twin):
                return False
            first, behind = twin.first, twin.first + inputs[name].size
            nbytes += inputs[name].nbytes
            if runs and runs[-1][0] is twin.values and runs[-1][2] == first:
                first = runs.pop()[1]
            runs.append((twin.values, first, behind))
        if (len(runs) - 1) * LEAST_PIECE_BYTES > nbytes:
            return False
        self.placed[name] = [values[first:behind] for values, first, behind in runs]
        return True

    def joined(self, inputs: Arrays, sent: Tensors) -> Tensors:
        """Return the tensors of a batch: those that were `sent`, and those that were placed.

        They are in the order of `inputs`, which tell their shapes: where a batch is filled up, the
        last row stands for the missing ones. The current stream copies. Inference thread.
        """
        return {
            name: _whole(self.placed[name], array.shape) if name in self.placed else sent[name]
            for name, array in inputs.items()
        }

    def _forget(self, key: int) -> None:
        """Count the copy of the array with the `id` `key` no longer. Any thread."""
        self._held.pop(key, None)

    def _is_taken(self, name: str, twin: RowsOnDevice) -> bool:
        """Return whether the module can take the elements of `twin` as its input `name`."""
        return twin.device == self.device and twin.values.dtype is self._inputs.get(name)

    def _is_kept(self, name: str, value: Any) -> bool:
        """Return whether the output `name` is what its array on the host will be, on this device.

        A copy would not have the values of a tensor whose conjugate, or negative, is its value.
        """
        return (
            type(value) is torch.Tensor
            and is_dense(value)
            and value.device == self._place
            and value.dtype is self._outputs.get(name)
            and value.numel() > 0
            and not (value.is_conj() or value.is_neg())
        )


def _dtypes(tensors: Sequence[TensorSpec]) -> dict[str, torch.dtype | None]:
    """Return by name the dtypes of `tensors`; None for one that PyTorch does not have."""
    return {tensor.name: getattr(torch, tensor.datatype.alias, None) for tensor in tensors}


def _flat(value: torch.Tensor, own: bool) -> torch.Tensor:
    """Return the elements of `value`, row-major, in memory into which nobody writes again."""
    value = value.detach()
    if own:
        return value.contiguous().view(-1)
    return value.clone(memory_format=torch.contiguous_format).view(-1)


def _whole(pieces: list[torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """Return a tensor of `shape` with the elements of `pieces`, and copies of the last row.

    It is always a new one: a model may write into its inputs, and others read the pieces.
    """
    whole = torch.empty(shape, dtype=pieces[0].dtype, device=pieces[0].device)
    count = sum([piece.numel() for piece in pieces])
    torch.cat(pieces, out=whole.view(-1)[:count])
    if count < whole.numel():
        rows = count * len(whole) // whole.numel()
        whole[rows:] = whole[rows - 1]
    return whole
