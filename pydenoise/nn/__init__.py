"""Layers whose forward and backward are both written out; torch's names and arguments.

`forward(x)` keeps what `backward(grad_output)` needs; backward returns the gradient of the input
and adds to those of the parameters. Plain float32 or float64 tensors in and out, no autograd.
"""

from __future__ import annotations

from . import init
from .activation import LeakyReLU, ReLU, Shift, Sigmoid
from .containers import Residual, Sequential, Skip
from .conv import Conv2d, ConvTranspose2d
from .loss import LOSSES, AnnealedL0Loss, L1Loss, Loss, MaskedMSELoss, MSELoss
from .module import LoadedKeys, Module, no_backward
from .parameter import FlatParameters, Parameter
from .pooling import AvgPool2d, MaxPool2d, Upsample
from .unfold import Fold, Unfold

__all__ = [
    "LOSSES",
    "AnnealedL0Loss",
    "AvgPool2d",
    "Conv2d",
    "ConvTranspose2d",
    "FlatParameters",
    "Fold",
    "L1Loss",
    "LeakyReLU",
    "LoadedKeys",
    "Loss",
    "MSELoss",
    "MaskedMSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Shift",
    "Sigmoid",
    "Skip",
    "Unfold",
    "Upsample",
    "init",
    "no_backward",
]
