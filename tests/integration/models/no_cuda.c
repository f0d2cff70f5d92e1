/* What torchvision's compiled operators want of PyTorch's CUDA libraries, for a PyTorch without.

The torchvision of PyPI is built for CUDA. Beside a PyTorch for the CPU it cannot be imported, as
the loader misses two libraries. Operators on the CPU call nothing of them, so a library of the same
names is enough. Whoever calls one of these functions all the same ends the process.

`make models` builds this only where torchvision cannot be imported without. */

#define MISSING(name) void name(void) { __builtin_trap(); }

MISSING(_ZN2at4cuda26getCurrentDevicePropertiesEv)
MISSING(_ZN3c104cuda12device_countEv)
MISSING(_ZN3c104cuda14ExchangeDeviceEa)
MISSING(_ZN3c104cuda14MaybeSetDeviceEa)
MISSING(_ZN3c104cuda17getStreamFromPoolEba)
MISSING(_ZN3c104cuda17getStreamFromPoolEia)
MISSING(_ZN3c104cuda20CUDACachingAllocator9allocatorE)
MISSING(_ZN3c104cuda20getCurrentCUDAStreamEa)
MISSING(_ZN3c104cuda20getDefaultCUDAStreamEa)
MISSING(_ZN3c104cuda20setCurrentCUDAStreamENS0_10CUDAStreamE)
MISSING(_ZN3c104cuda29c10_cuda_check_implementationEiPKcS2_jb)
MISSING(_ZN3c104cuda9GetDeviceEPa)
MISSING(_ZN3c104cuda9SetDeviceEab)
MISSING(_ZNK3c104cuda10CUDAStream11synchronizeEv)
MISSING(_ZNK3c104cuda10CUDAStream5queryEv)
MISSING(_ZNK3c104cuda10CUDAStream6streamEv)
