"""What random shapes seldom meet: taps that never touch, strides that lie, sums of a million terms,
a fork after a parallel call."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import Place
from torch import Tensor
from torch.nn.functional import conv_transpose2d, fold

from pydenoise import ops
from pydenoise.ops import _backend

FORK = """
import os, sys, torch
from pydenoise import ops
torch.set_num_threads(2)
x, w, b = torch.randn(8, 3, 64, 64), torch.randn(48, 3, 3, 3), torch.randn(48)
def work():
    for algorithm in ("implicit", "im2col", "auto"):
        with ops.use_algorithm(algorithm):
            z = ops.conv2d(x, w, b, 2, 1)
            ops.conv_transpose2d(z, w, b[:3], 2, 1, 1)
            ops.conv2d_grad_weight(x, w.shape, z, 2, 1)
    ops.sigmoid(ops.relu(z))
work()
child = os.fork()
if child == 0:
    work()
    os._exit(0)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes() -> None:
    if ops.backends()["cpu"] is not None:
        pytest.skip("torch's own threads do not survive a fork, and the reference runs on them")
    done = subprocess.run([sys.executable, "-c", FORK], timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="pages are fenced with mprotect")
def test_nothing_beyond_a_tensor_is_touched(place: Place) -> None:
    if place.backend != "cpu":
        pytest.skip("only the kernels for main memory meet pages")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "tests.fenced", place.isa]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    last = done.stdout.splitlines()[-1:]
    assert (done.returncode, last) == (0, ["everything stayed inside"]), done.stderr[-2000:]


@pytest.mark.parametrize("padding", [(0, 6), (9, 9), (0, 100_000)], ids=str)
def test_taps_beside_the_picture(padding: tuple[int, int], place: Place) -> None:
    dilation = (1, 1) if padding[1] < 50 else (1, 2 * padding[1])
    columns = torch.randn(1, 2, (4 + 2 * padding[0]) * (4 + 2 * padding[1] - dilation[1]))
    wanted = fold(columns, (4, 4), (1, 2), dilation, padding)
    found = ops.col2im(place.put(columns), (4, 4), (1, 2), dilation, padding)
    assert torch.equal(found.cpu(), wanted)


def sides_of_one(device: torch.device) -> list[Tensor]:
    """(1, 7, 5, 1) and (1, 7, 1, 5), contiguous by torch's word with strides of something else."""
    whole = torch.randn(1, 7, 4, 5, device=device)
    return [whole.permute(0, 2, 3, 1)[..., :1].permute(0, 3, 2, 1), whole[:, :, :1], whole[..., :1]]


@pytest.mark.parametrize("index", range(3))
def test_strides_of_a_side_of_one(index: int, place: Place, algorithm: str) -> None:
    x = sides_of_one(place.device)[index]
    weight = torch.randn(x.shape[1], 2, 3, 3, device=place.device)
    wanted = conv_transpose2d(x.cpu().double(), weight.cpu().double(), None, 1, 1)
    out = torch.full(wanted.shape, torch.nan, device=place.device)
    ops.conv_transpose2d(x, weight, None, 1, 1, out=out)
    torch.testing.assert_close(out.cpu().double(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stride", [5, 32])
def test_many_phases(stride: int, place: Place, algorithm: str) -> None:
    x, weight = torch.randn(2, 3, 3, 2), torch.randn(3, 4, stride, stride - 1)
    wanted = conv_transpose2d(x, weight, None, stride)
    found = ops.conv_transpose2d(place.put(x), place.put(weight), None, stride)
    torch.testing.assert_close(found.cpu(), wanted)


def test_long_sums_keep_their_digits(place: Place, algorithm: str) -> None:
    """A constant is the worst case for float32: every rounding goes the same way."""
    if place.backend == "reference":
        pytest.skip("the reference leaves the order of its sums to torch")
    tenth = torch.full((1, 4, 1000, 1000), 0.1, device=place.device)
    exact = 0.1 * 0.1 * 1_000_000
    unit = 2.0**-24
    for gz in (tenth, tenth.contiguous(memory_format=torch.channels_last)):
        total = ops.conv2d_grad_bias(gz)
        assert (total - 100_000).abs().max() <= 100_000 * 4 * unit
        weight = ops.conv2d_grad_weight(tenth, (4, 4, 1, 1), gz)
        assert (weight.double() - exact).abs().max() <= 4 * 1_000_000**0.5 * unit * exact
    for channels in (1, 5):
        x = torch.full((1, 4096, 3, 3), 0.1, device=place.device)
        deep = ops.conv2d(x, x.repeat(channels, 1, 1, 1))
        assert (deep.double() / 368.64 - 1).abs().max() <= 4 * 36_864**0.5 * unit


def test_auto_chooses_by_all_but_the_pictures_size() -> None:
    """For weights by that, too; never by how many pictures there are."""
    if ops.backends()["cpu"] is not None:
        pytest.skip("only the compiled kernels have a choice to make")
    fastest = _backend._ON_PROCESSOR.fastest
    for channels, out_channels, kernel, stride, padding, groups, right in (
        (3, 16, 3, 2, 2, 1, "implicit"),
        (48, 16, 3, 8, 2, 1, "im2col"),
        (48, 16, 3, 8, 2, 16, "implicit"),
        (64, 16, 3, 8, 2, 1, "implicit"),
        (32, 32, 3, 1, 2, 1, "winograd2"),
        (32, 31, 3, 1, 2, 1, "implicit"),
        (64, 64, 3, 1, 2, 2, "winograd2"),
        (64, 64, 3, 1, 2, 4, "implicit"),
        (64, 64, 3, 2, 2, 1, "implicit"),
        (64, 64, 3, 2, 1, 1, "winograd2"),
        (64, 64, 3, 2, (3, 1), 1, "winograd2"),
        (64, 64, 3, 2, (1, 2), 1, "implicit"),
        (64, 64, 5, 1, 2, 1, "implicit"),
    ):
        saves = right == "winograd2"
        for side, batch in product((5, 33), (1, 64)):
            size = (batch, channels, side, side)
            weight_size = (out_channels, channels // groups, kernel, kernel)
            sizes = size, weight_size
            shape = ops._geometry.forward_shape("test", sizes, stride, padding, 1, groups)
            assert fastest("conv2d_grad_input", shape) == right
            of_weight = "winograd2" if saves and side == 33 else "implicit"
            assert fastest("conv2d_grad_weight", shape) == of_weight


FAR = 2**31 - 1


@pytest.mark.parametrize("channels", [(2, 2), (3, 3), (2, 8)])
def test_taps_as_far_apart_as_there_are_numbers(channels: tuple[int, int], place: Place) -> None:
    """Sizes whose product no number holds choose a way that needs little memory."""
    c, m = channels
    x, w = place.put(torch.randn(1, c, 1, 1)), place.put(torch.randn(m, c, 2, 2))
    if place.backend == "cuda":
        with pytest.raises(ValueError, match="too large for a GPU"):
            ops.conv2d(x, w, None, 1, 2**30, FAR)
        return
    assert torch.equal(ops.conv2d(x, w, None, 1, 2**30, FAR), torch.zeros(1, m, 2, 2))
    tall = ops.conv2d(torch.randn(1, c, 1, 9), w[..., :1], None, 1, (2**30, 0), (FAR, 1))
    assert torch.equal(tall, torch.zeros(1, m, 2, 9))
    gz = torch.randn(1, m, 2, 2)
    wide = ops.conv_transpose2d(gz, w, None, 1, 2**30, 0, 1, FAR)
    assert torch.equal(wide, torch.zeros(1, c, 1, 1))


@pytest.mark.parametrize("distance", [30, 1000])
def test_taps_far_apart_on_one_side(distance: int, place: Place) -> None:
    x, w = torch.randn(1, 16, 3, 40), torch.randn(5, 16, 3, 3)
    geometry = 1, (distance, 0), (distance, 1)
    exact = F.conv2d(x.double(), w.double(), None, *geometry)
    sizes = F.conv2d(x.double().abs(), w.double().abs(), None, *geometry)
    z = ops.conv2d(place.put(x), place.put(w), None, *geometry).cpu()
    assert ((z - exact).abs() <= 48 * 2.0**-24 * sizes).all()
