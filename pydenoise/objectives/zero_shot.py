"""One noisy picture: its two halves of the pixels are noisy pictures of the same scene."""

from __future__ import annotations

import torch
from torch import Tensor

from pydenoise import nn
from pydenoise.nn.containers import interior


class ZeroShot:
    """Zero-shot Noise2Noise: what a network learns from the one picture that it shall denoise.

    The network predicts noise, ``g(v) = v - model(v)``. With ``y1, y2 = D(y)`` the two halves of
    the picture, see `pair_downsample`::

        L = 1/2 [mse(g(y1), y2) + mse(g(y2), y1)]
          + 1/2 [mse(g(y1), D1 g(y)) + mse(g(y2), D2 g(y))]

    Each half is aimed at the other; and denoising and halving shall commute, which ties what is
    learned at half the size to the size at which it is used.

    Notes
    -----
    The gradient flows through every term. With ``e = g(y_i) - y_j`` and ``d = g(y_i) - D_i g(y)``,
    both over all ``n`` pixels of both halves::

        dL/dg(y_i) = 2 (e + d) / n        dL/dg(y) = -D'(2 d / n)        dL/dmodel = -dL/dg

    and D' is `pair_downsample_backward`. The three passes share the layers, so each leaves an
    entry on their stacks and goes back in reverse order.

    The noise must be independent between pixels and of mean zero.

    Y. Mansour, R. Heckel, "Zero-shot Noise2Noise: efficient image denoising without any data",
    CVPR 2023.
    """

    def __init__(self) -> None:
        self._across, self._along = nn.MSELoss(), nn.MSELoss()

    def step(self, model: nn.Module, picture: Tensor, valid: Tensor | None = None) -> float:
        """Add the gradient of a batch to the parameters' gradients.

        Parameters
        ----------
        model : Module
            In training mode; predicts the noise, and takes pictures of half the size too.
        picture : Tensor (N, C, H, W), float32 or float64
            Noisy; H and W even. All finite.
        valid : Tensor (N, 1, H, W) of bool, optional
            False where a pixel is not to be learned from; all are if omitted.

        Returns
        -------
        float
            The loss; 0 where no 2x2 cell is wholly valid.

        Raises
        ------
        ValueError
            For a picture of odd or no size.
        RuntimeError
            For a model in eval mode.
        """
        try:
            return self._add_gradients(model, picture, valid)
        except BaseException:
            for module in (model, self._across, self._along):
                module.forget()
            raise

    def _add_gradients(self, model: nn.Module, picture: Tensor, valid: Tensor | None) -> float:
        halves = pair_downsample(picture)
        weights = _weights(picture, valid)
        share = 1.0
        if weights is not None:
            share = weights.numel() / max(1.0, weights.sum().item())
        with interior(model):
            from_halves = halves - model.forward(halves)
            from_whole = pair_downsample(picture - model.forward(picture))
            other = halves.roll(len(picture), 0)
            if weights is not None:
                from_halves, from_whole, other = (
                    t * weights for t in (from_halves, from_whole, other)
                )
            loss = self._across.forward(from_halves, other)
            loss += self._along.forward(from_halves, from_whole)
            along = self._along.backward(share)
            model.backward_parameters(pair_downsample_backward(along))
            model.backward_parameters(self._across.backward(share).add_(along).neg_())
        return share * loss


def pair_downsample(picture: Tensor) -> Tensor:
    """Two pictures of half the size, of which each pixel of the picture is in exactly one.

    ::

        cell  a b     D1 = (b + c) / 2     D2 = (a + d) / 2
              c d

    Parameters
    ----------
    picture : Tensor (N, C, H, W)
        Floating point, H and W even.

    Returns
    -------
    Tensor (2 N, C, H / 2, W / 2)
        New: D1 of all N, then D2 of all N. For independent noise theirs is independent too.

    Raises
    ------
    ValueError
        For a picture of odd or no size.

    Examples
    --------
    >>> pair_downsample(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).flatten()
    tensor([2.5000, 2.5000])
    """
    if picture.dim() != 4 or 0 in picture.shape or picture.shape[2] % 2 or picture.shape[3] % 2:
        raise ValueError(
            "pair_downsample: picture must be (N, C, H, W) with even height and width, "
            f"got {tuple(picture.shape)}"
        )
    a, b, c, d = _cells(picture)
    return torch.cat([b + c, a + d]).mul_(0.5)


def pair_downsample_backward(grad_output: Tensor) -> Tensor:
    """The adjoint of `pair_downsample`: half of each gradient to each of the two pixels.

    Parameters
    ----------
    grad_output : Tensor (2 N, C, h, w)

    Returns
    -------
    Tensor (N, C, 2 h, 2 w)
        New.
    """
    first, second = grad_output.mul(0.5).chunk(2)
    batch, channels, height, width = first.shape
    grad_input = first.new_empty(batch, channels, 2 * height, 2 * width)
    for cells, half in zip(_cells(grad_input), (second, first, first, second), strict=True):
        cells.copy_(half)
    return grad_input


def _cells(picture: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four pixels of every 2x2 cell, row by row."""
    top, bottom = picture[:, :, ::2], picture[:, :, 1::2]
    return top[..., ::2], top[..., 1::2], bottom[..., ::2], bottom[..., 1::2]


def _weights(picture: Tensor, valid: Tensor | None) -> Tensor | None:
    """1 for the cells of both halves that are wholly valid, 0 for the others; None for all."""
    if valid is None or bool(valid.all()):
        return None
    a, b, c, d = _cells(valid)
    return (a & b & c & d).to(picture.dtype).expand(-1, picture.shape[1], -1, -1).repeat(2, 1, 1, 1)
