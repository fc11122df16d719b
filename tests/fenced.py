"""Run the convolutions on memory between pages that nobody may touch: beyond is a crash.

    python -m tests.fenced INSTRUCTION_SET
    python -m tests.fenced cuda LIBRARY

The second runs the CUDA kernels that on_host.py has built into a library, with every tile. Each
tensor lies flush with the end of its pages, then with their beginning. Printed is the case that is
about to run, so that the last line names the one that crashed, or whose bits are not those of
ordinary memory.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pydenoise import ops
from pydenoise.ops import Finish, _backend

PAGE = mmap.PAGESIZE


class Fence:
    """Pages to lay one tensor after the other into, with a forbidden page on either side."""

    def __init__(self, nbytes: int) -> None:
        self._size = -(-nbytes // PAGE) * PAGE
        self._memory = mmap.mmap(-1, self._size + 2 * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for page in (address, address + PAGE + self._size):
            if protect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")

    def lay(self, x: Tensor, at_end: bool, memory_format: torch.memory_format) -> Tensor:
        """A copy of x at the end or the beginning of the pages."""
        like = x.contiguous(memory_format=memory_format) if x.dim() == 4 else x.contiguous()
        offset = PAGE + (self._size - x.nbytes if at_end else 0)
        flat = torch.frombuffer(self._memory, dtype=x.dtype, count=x.numel(), offset=offset)
        return flat.as_strided(x.shape, like.stride()).copy_(x)


class Shape(NamedTuple):
    """A convolution; sides of 3 and steps of 1 unless it says otherwise."""

    batch: int
    channels: tuple[int, int]
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


Way: TypeAlias = tuple[str, AbstractContextManager[object]]
"""One to try an operation on a shape, by name, and its scope."""
Ways: TypeAlias = Callable[[str, Shape], Iterator[Way]]
"""All of them, for an operation by name and a shape."""

CHANNELS = (1, 3, 5, 7, 8, 9, 20, 33, 48, 50)
WIDTHS = (1, 2, 15, 16, 17, 33, 129, 300)
# fmt: off
SHAPES = [
    *(Shape(1, (c, CHANNELS[i * 7 % 10]), (2 + i % 3, WIDTHS[i * 3 % 8]))
      for i, c in enumerate(CHANNELS)),
    *(Shape(2, (CHANNELS[i * 3 % 10], 3), (3, width), stride=(1, 2))
      for i, width in enumerate(WIDTHS)),
    *(Shape(1, (8, c), (5, 17), stride=(2, 2)) for c in CHANNELS),
    *(Shape(1, (c, c), (3, 5), kernel=(1, 1), padding=(0, 0)) for c in CHANNELS),
    *(Shape(2, (c, 48), (6, 8), (2, 2), padding=(0, 0)) for c in (8, 16, 48)),
    *(Shape(1, (48, c), (7, 9), padding=(0, 0)) for c in (1, 2, 3, 4, 24, 32, 64)),
    Shape(1, (3, 5), (4, 5), padding=(40, 60)),
    Shape(1, (33, 32), (2, 3), padding=(5, 9)),
    Shape(2, (7, 9), (17, 33), (2, 3), stride=(5, 7), padding=(0, 2)),
    Shape(1, (5, 3), (33, 16), dilation=(3, 4), padding=(2, 5)),
    Shape(1, (16, 8), (17, 15), (2, 3), (2, 1), (3, 0), (4, 2)),
    Shape(2, (20, 50), (5, 6), groups=10),
    Shape(1, (33, 33), (4, 17), groups=33),
    Shape(1, (9, 6), (6, 129), stride=(1, 3), groups=3),
    Shape(1, (520, 4), (2, 2)),
    Shape(3, (4, 6), (1, 1)),
]
# fmt: on


def runs(s: Shape) -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Name -> call(out, *operands) and its operands, of which the first has the size of `out`."""
    generator = torch.Generator().manual_seed(1)
    steps = (s.stride, s.padding, s.dilation, s.groups)
    x = torch.randn((s.batch, s.channels[0], *s.size), generator=generator)
    w = torch.randn((s.channels[1], s.channels[0] // s.groups, *s.kernel), generator=generator)
    z = torch.randn(ops.conv2d(x, w, None, *steps).shape, generator=generator)
    b, c = torch.randn(s.channels[1], generator=generator), torch.randn(s.channels[0])

    patches = (s.kernel, s.dilation, s.padding, s.stride)
    columns = ops.im2col(x, *patches)

    def forward(out: Tensor, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return ops.conv2d(x, w, b, *steps, out=out, finish=Finish("relu"))

    def back(out: Tensor, w: Tensor, gz: Tensor) -> Tensor:
        return ops.conv2d_grad_input(x.shape, w, gz, *steps, out=out)

    def masked(out: Tensor, w: Tensor, gz: Tensor, z: Tensor) -> Tensor:
        finish = Finish("leaky_relu", 0.1, z)
        return ops.conv2d_grad_input(x.shape, w, gz, *steps, out=out, finish=finish)

    def weight(out: Tensor, x: Tensor, gz: Tensor) -> Tensor:
        return ops.conv2d_grad_weight(x, w.shape, gz, *steps, out=out)

    def bias(out: Tensor, gz: Tensor) -> Tensor:
        return ops.conv2d_grad_bias(gz, out=out)

    def unfolded(out: Tensor, x: Tensor) -> Tensor:
        return ops.im2col(x, *patches, out=out)

    def folded(out: Tensor, columns: Tensor) -> Tensor:
        return ops.col2im(columns, s.size, *patches, out=out)

    return {
        "im2col": (unfolded, (columns, x)),
        "col2im": (folded, (x, columns)),
        "conv2d": (forward, (z, x, w, b)),
        "grad_input": (back, (x, w, z)),
        "grad_input, finished": (masked, (x, w, z, x)),
        "grad_weight": (weight, (w, x, z)),
        "grad_bias": (bias, (b, z)),
        "grad_bias of the input": (bias, (c, x)),
    }


def main(isa: str, library: str = "") -> None:
    fences = [Fence(4 << 20) for _ in range(4)]
    print("memory is fenced", flush=True)
    with ExitStack() as scopes:
        ways = by_instruction_set(isa, scopes) if isa != "cuda" else by_tile(Path(library), scopes)
        for shape in SHAPES:
            for name, (call, operands) in runs(shape).items():
                for way, scope in ways(name, shape):
                    with scope:
                        wanted = call(torch.full_like(operands[0], torch.nan), *operands[1:])
                        check(f"{name} {way} {shape}", call, operands, wanted, fences)


def by_instruction_set(isa: str, scopes: ExitStack) -> Ways:
    """The kernels of the processor, by every algorithm that there is for a shape."""
    scopes.enter_context(ops.use_backend("cpu"))
    scopes.enter_context(_backend.use_isa(isa))

    def ways(name: str, shape: Shape) -> Iterator[Way]:
        algorithms = ["implicit"]
        if name.startswith(("conv2d", "grad_input")) and shape.kernel == (3, 3):
            algorithms += ["winograd2", "winograd4"]
        for algorithm in algorithms:
            yield algorithm, ops.use_algorithm(algorithm)

    return ways


def by_tile(library: Path, scopes: ExitStack) -> Ways:
    """The CUDA kernels on this processor; products by every tile."""
    sys.path.insert(0, str(Path(__file__).parent))
    from on_host import Kernels, in_place_of_the_processor

    kernels = Kernels(library)
    scopes.enter_context(in_place_of_the_processor(kernels))

    def ways(name: str, shape: Shape) -> Iterator[Way]:
        if name in ("im2col", "col2im") or name.startswith("grad_bias"):
            yield "", nullcontext()
            return
        for tile in range(len(kernels.module.FLOAT_TILES)):
            yield f"tile {tile}", kernels.prescribed(tile)

    return ways


def check(
    what: str,
    call: Callable[..., Tensor],
    operands: tuple[Tensor, ...],
    wanted: Tensor,
    fences: list[Fence],
) -> None:
    """At both ends, in both formats."""
    is_weight, plain = what.startswith("grad_weight"), torch.contiguous_format
    for at_end, memory_format in product((True, False), (plain, torch.channels_last)):
        print(what, "at the end" if at_end else "at the beginning", memory_format, flush=True)
        out, *read = (
            fence.lay(x, at_end, plain if is_weight and x is operands[0] else memory_format)
            for fence, x in zip(fences, operands, strict=False)
        )
        out.fill_(torch.nan)
        call(out, *read)
        assert torch.equal(out, wanted), what


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("everything stayed inside")
