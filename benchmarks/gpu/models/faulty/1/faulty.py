"""A model that harms its device in the way that a row's first value names.

Without a GPU it raises what the server makes of such harm, so that all else can be tried there.
"""

import torch

from batcher.errors import DeviceLost

FILLS, ASSERTS = 1, 2

ROW_BYTES = 64 * 2**20
"""Device memory that a row which `FILLS` takes: 4 GiB for a batch of 64 rows."""

FITTING_ROWS = 16
"""Rows that fit without a GPU, where no memory is taken."""


class Faulty(torch.nn.Module):
    """Gives its input back, after the harm that a row asks for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`; rows of 0 are healthy, as those of the warm-up are."""
        faults = x[:, 0].tolist()
        if ASSERTS in faults:
            return x + self._assert_on(x.device)
        if FILLS in faults:
            if x.is_cuda:
                torch.empty(len(x) * ROW_BYTES, dtype=torch.uint8, device=x.device).fill_(1)
            elif len(x) > FITTING_ROWS:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory, says the dry run")
        return x.clone()

    def _assert_on(self, device: torch.device) -> torch.Tensor:
        """Read behind the end of a table: on CUDA an assertion fails within the kernel.

        Nothing here waits for the kernel, so the loss shows only when the server asks for the end.
        """
        if device.type != "cuda":
            raise DeviceLost("the dry run says so")
        table = torch.zeros(4, device=device)
        return table[torch.full((8,), 1_000, device=device)].sum()
