"""The operations, on plain tensors: arguments checked, backend picked, call made.

Everything takes and returns ``torch.Tensor`` (float32 or float64) and never touches autograd.
Names and argument orders are torch's.
"""

from __future__ import annotations

from ._backend import (
    allow_tf32,
    backends,
    current_algorithm,
    fastest_format,
    is_compiled,
    multiply_adds,
    running,
    show_config,
    use_algorithm,
    use_backend,
)
from ._backward import conv2d_backward, conv_transpose2d_backward
from ._columns import col2im, im2col
from ._conv import (
    conv2d,
    conv2d_grad_bias,
    conv2d_grad_input,
    conv2d_grad_weight,
    conv_transpose2d,
    result_tile,
)
from ._cuda import RULE_NUMBERS, Deferred, rule_row
from ._finish import Finish
from ._graph import captured
from ._pointwise import (
    adam_step,
    l0_loss,
    l0_loss_backward,
    l1_loss,
    l1_loss_backward,
    leaky_relu,
    leaky_relu_backward,
    mse_loss,
    mse_loss_backward,
    relu,
    relu_backward,
    sgd_step,
    sigmoid,
    sigmoid_backward,
)
from ._pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    upsample_nearest2d,
    upsample_nearest2d_backward,
)
from ._tape import Tape, new_tape, tape_key

__all__ = [
    "RULE_NUMBERS",
    "Deferred",
    "Finish",
    "Tape",
    "adam_step",
    "avg_pool2d",
    "avg_pool2d_backward",
    "backends",
    "captured",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "current_algorithm",
    "fastest_format",
    "im2col",
    "l0_loss",
    "l0_loss_backward",
    "l1_loss",
    "l1_loss_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mse_loss",
    "mse_loss_backward",
    "multiply_adds",
    "new_tape",
    "relu",
    "relu_backward",
    "result_tile",
    "rule_row",
    "is_compiled",
    "running",
    "sgd_step",
    "show_config",
    "sigmoid",
    "sigmoid_backward",
    "tape_key",
    "upsample_nearest2d",
    "upsample_nearest2d_backward",
    "allow_tf32",
    "use_algorithm",
    "use_backend",
]
