"""What NVIDIA's driver says of its devices, by NVML, the library behind `nvidia-smi`.

A call may take milliseconds, and one to a driver that hangs never returns. So nothing here is
called on the loop.

Devices are those that the driver shows to this process, with the numbers of `nvidia-smi`. CUDA may
number them in another order, and `CUDA_VISIBLE_DEVICES` hides none of them here: the unique name
tells which is which.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple


class NoDevices(Exception):
    """There are no devices to ask; the message says why."""


class DeviceReading(NamedTuple):
    """One device at one moment.

    Attributes:
        number: number of the device, from 0, as text.
        name: what the device is called, such as `NVIDIA H200`.
        unique: name that no other device has.
        used_bytes: memory that is taken, by anybody; drivers before 510 count what they keep for
            themselves.
        total_bytes: memory of the device.
        busy: share of the last moments, of up to a second, in which anything ran, 0 to 1; None if
            the device does not tell, as a part of a card does not.
    """

    number: str
    name: str
    unique: str
    used_bytes: int
    total_bytes: int
    busy: float | None


class Nvml:
    """Reads all devices. One thread at a time, and never the loop's."""

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._library: Any = None
        self._devices: list[tuple[str, str, str, Any]] = []

    def read(self) -> list[DeviceReading]:
        """Return a reading of each device that answers.

        Raises:
            NoDevices: there is no driver, or none that its library fits.
        """
        if self._library is None:
            self._open()
        readings = []
        for number, name, unique, handle in self._devices:
            try:
                memory = self._memory(handle)
            except self._library.NVMLError:  # it has fallen off its bus
                continue
            busy = self._busy(handle)
            readings.append(DeviceReading(number, name, unique, memory.used, memory.total, busy))
        return readings

    def _open(self) -> None:
        """Find the devices. Raises NoDevices."""
        library = import_module("pynvml")
        try:
            library.nvmlInit()
            handles = map(library.nvmlDeviceGetHandleByIndex, range(library.nvmlDeviceGetCount()))
            self._devices = [
                (
                    str(number),
                    library.nvmlDeviceGetName(handle),
                    library.nvmlDeviceGetUUID(handle),
                    handle,
                )
                for number, handle in enumerate(handles)
            ]
        except library.NVMLError as err:
            raise NoDevices(str(err)) from None
        self._library = library

    def _memory(self, handle: Any) -> Any:
        """Return the memory of a device; raises NVMLError if it does not tell."""
        ask, library = self._library.nvmlDeviceGetMemoryInfo, self._library
        if (version := getattr(library, "nvmlMemory_v2", None)) is not None:
            with suppress(library.NVMLError):  # an old driver
                return ask(handle, version)
        return ask(handle)

    def _busy(self, handle: Any) -> float | None:
        """Return the share of time in which a device ran anything; None if it does not tell."""
        try:
            return float(self._library.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
        except self._library.NVMLError:
            return None
