"""One small call of every CUDA kernel, for compute-sanitizer: bench/gpu.sh runs it."""

from __future__ import annotations

import torch

import pydenoise
from pydenoise import _cuda, models, nn, ops, optim
from pydenoise.objectives import Noise2Noise


def convolutions(
    channels: int,
    out_channels: int,
    stride: int,
    groups: int,
    size: tuple[int, int, int] = (2, 9, 11),
    dtype: torch.dtype = torch.float32,
) -> None:
    batch, *side = size
    x = torch.rand(batch, channels, *side, device="cuda", dtype=dtype)
    w = torch.rand(out_channels, channels // groups, 3, 3, device="cuda", dtype=dtype)
    for picture in (x, x.contiguous(memory_format=torch.channels_last)):
        for algorithm in ("implicit", "im2col"):
            with pydenoise.use_algorithm(algorithm):
                z = ops.conv2d(picture, w, None, stride, 1, 1, groups)
                ops.conv2d_grad_input(picture.shape, w, z, stride, 1, 1, groups)
                ops.conv2d_grad_weight(picture, w.shape, z, stride, 1, 1, groups)
                ops.conv2d_grad_bias(z)
        with pydenoise.allow_tf32():
            ops.conv2d(picture, w, None, stride, 1, 1, groups)


def training(loss: nn.Loss, rule: type[optim.Optimizer]) -> None:
    model = models.autoencoder((8, 12), seed=0).to("cuda")
    objective, optimizer = Noise2Noise(loss), rule(model, lr=0.1)
    for _ in range(4):
        source, target = torch.rand(2, 2, 3, 16, 16, device="cuda")
        objective.step(model, source, target)
        optimizer.step()
        optimizer.zero_grad()


for arguments in ((3, 48, 2, 1), (48, 3, 1, 1), (20, 36, 1, 1), (6, 9, 2, 3)):
    convolutions(*arguments)
for tile in range(len(_cuda.FLOAT_TILES)):  # each works on several, the last of them part empty
    _cuda.prescribe(tile, 3)
    convolutions(20, 101, 1, 1, (2, 12, 13))
    convolutions(5, 36, 2, 1, (3, 12, 13))
_cuda.prescribe(-1, 0)
convolutions(36, 36, 1, 1, (9, 33, 34))  # many enough to pack their weights first
convolutions(6, 9, 2, 3, dtype=torch.float64)
training(nn.MSELoss(), optim.SGD)
training(nn.L1Loss(), optim.Adam)
leaky = ops.leaky_relu(torch.randn(1001, device="cuda"), 0.1)
ops.leaky_relu_backward(leaky, leaky, 0.1)
torch.cuda.synchronize()
print("every kernel ran")
