"""Starting Triton kernels on the cheap, for networks that wait for Python more than for the GPU.

Where Triton starts a kernel of 19 arguments it looks at every one of them to find the compiled code: 30 us each time.
What it would find depends only on types, sizes and alignment, so a plan made once a shape holds the code itself, and a
start takes less than half of that. Tensors between kernels lie in one piece of memory: allocations cost time too.
"""

import ctypes
import functools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

# Kernels are compiled for pointers that are multiples of this.
ALIGNMENT = 16
# Releases of Triton whose compiled kernels are started directly; others start them their own way, which takes longer.
_DIRECT = ((3, 3), (3, 8))
_SPACING = 256


@functools.cache
def starts_directly() -> bool:
    """Whether this Triton's compiled kernels take their arguments as `PreparedKernel` hands them over."""
    major, minor = (int(part) for part in triton.__version__.split(".")[:2])
    return _DIRECT[0] <= (major, minor) <= _DIRECT[1]


class Layout:
    """Where tensors of given shapes and types lie in one piece of memory."""

    def __init__(self, **parts: tuple[Sequence[int], torch.dtype]) -> None:
        self.offsets: list[int] = []
        self.size = 0
        for shape, dtype in parts.values():
            self.offsets.append(self.size)
            self.size += -(-math.prod(shape) * dtype.itemsize // _SPACING) * _SPACING

    def allocate(self, device: torch.device) -> tuple[Tensor, list[int]]:
        """(the memory, which the caller keeps for as long as it is used; the address of each tensor)."""
        memory = torch.empty(self.size, dtype=torch.uint8, device=device)
        base = memory.data_ptr()
        return memory, [base + offset for offset in self.offsets]


class Together:
    """Tensors of given shapes and one type in one piece of memory, made in two calls instead of one a tensor."""

    def __init__(self, shapes: Sequence[Sequence[int]], dtype: torch.dtype, device: torch.device) -> None:
        one, step = torch.empty(1, dtype=dtype, device=device), ALIGNMENT // dtype.itemsize
        self._templates: list[Tensor] = []
        self._places: list[int] = []
        for shape in shapes:
            self._places.append(len(self._templates))
            self._templates.append(one.expand(shape))
            if math.prod(shape) % step:
                self._templates.append(one.expand(-math.prod(shape) % step))
        self._size = sum(template.numel() for template in self._templates)
        self._dtype, self._device = dtype, device

    def empty(self) -> list[Tensor]:
        """The tensors, of any values."""
        memory = torch.empty(self._size, dtype=self._dtype, device=self._device)
        parts = torch._C._nn.unflatten_dense_tensors(memory, self._templates)
        return [parts[place] for place in self._places]


class _Address:
    """What Triton takes for a tensor of type `dtype`."""

    __slots__ = ("address", "dtype")

    def __init__(self, address: int, dtype: torch.dtype) -> None:
        self.address = address
        self.dtype = dtype

    def data_ptr(self) -> int:
        return self.address


def _tensor_at(address: int, dtype: torch.dtype) -> Tensor:
    """For the interpreter, which asks for tensors and then computes with their addresses."""
    if address == 0:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer((ctypes.c_char * 16).from_address(address), dtype=dtype)


class PreparedKernel:
    """A kernel with its grid, numbers and compile-time arguments; a call needs only its pointers.

    Args:
        kernel: a `triton.jit` function that takes first pointers, then numbers, then compile-time arguments.
        grid: how many programs, one to three numbers.
        types: of what the pointers point to.
        numbers: what comes after them.
        device: where it runs.
        options: the compile-time arguments, and num_warps, num_stages, maxnreg.
    """

    __slots__ = ("_device", "_kernel", "_numbers", "_options", "_ready", "_tail", "_types", "grid", "variant")

    def __init__(
        self,
        kernel: Any,
        grid: Sequence[int],
        types: Sequence[torch.dtype],
        numbers: Sequence[float],
        device: torch.device,
        options: Mapping[str, Any],
    ) -> None:
        self._kernel = kernel
        self.grid = (*grid, 1, 1)[:3]
        """Programs in each dimension; CUDA takes 2^31 - 1, 65535 and 65535."""
        self._types, self._numbers, self._options = tuple(types), tuple(numbers), dict(options)
        constants = kernel.arg_names[len(self._types) + len(self._numbers) :]
        self._tail = (*self._numbers, *(self._options[name] for name in constants))
        self._device = device.index
        self._ready: tuple[Any, ...] | None = None
        self.variant = (kernel, self._types, tuple(sorted(self._options.items())), self._device)
        """What is compiled anew for each; numbers count too, but for few kernels and in few ways."""

    def compile(self) -> None:
        """Compile the kernel, or read it from Triton's cache, and load it onto the current device."""
        compiled = self._kernel.warmup(*self._types, *self._numbers, grid=self.grid, **self._options)
        run = compiled.run  # makes what starts it, and loads it
        self._ready = run, (compiled.function, compiled.packed_metadata, None, None, None)

    def __call__(self, *pointers: int) -> None:
        """Start it on the current stream; the current device is the one it was prepared for."""
        ready = self._ready
        if ready is None:
            self._start_first(pointers)
            return
        aligned = 0
        for pointer in pointers:
            aligned |= pointer
        if aligned % ALIGNMENT:
            self._start_plainly(pointers)
            return
        run, fixed = ready
        run(*self.grid, torch._C._cuda_getCurrentRawStream(self._device), *fixed, *pointers, *self._tail)

    def _start_first(self, pointers: Sequence[int]) -> None:
        if isinstance(self._kernel, InterpretedFunction):
            tensors = [_tensor_at(pointer, dtype) for pointer, dtype in zip(pointers, self._types, strict=True)]
            self._kernel[self.grid](*tensors, *self._numbers, **self._options)
        elif starts_directly():
            self.compile()
            self(*pointers)
        else:
            self._start_plainly(pointers)

    def _start_plainly(self, pointers: Sequence[int]) -> None:
        addresses = [_Address(pointer, dtype) for pointer, dtype in zip(pointers, self._types, strict=True)]
        self._kernel[self.grid](*addresses, *self._numbers, **self._options)


_compiled: set[Any] = set()


def compile_together(kernels: Iterable[PreparedKernel], device: torch.device) -> None:
    """Compile those of the kernels that no plan had before, side by side: one after the other they take seconds."""
    new = {kernel.variant: kernel for kernel in kernels if kernel.variant not in _compiled}
    if len(new) < 2 or device.type != "cuda" or not starts_directly():
        return
    _compiled.update(new)
    if any(isinstance(kernel.variant[0], InterpretedFunction) for kernel in new.values()):
        return
    for function, *_ in new:
        function.cache_key  # noqa: B018 (worked out by functions that share others, which threads must not do at once)

    def compile_one(kernel: PreparedKernel) -> None:
        with torch.cuda.device(device):
            kernel.compile()

    with ThreadPoolExecutor(min(len(new), os.cpu_count() or 1)) as pool:
        for done in [pool.submit(compile_one, kernel) for kernel in new.values()]:
            done.result()
