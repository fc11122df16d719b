"""What is told of each picture that was denoised: its noise, and how near it is to a clean one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydenoise.cli.console import print_table

if TYPE_CHECKING:
    import numpy as np

    from pydenoise.cli.plan import Job
    from pydenoise.data import Picture
    from pydenoise.diagnosis import Diagnosis


class Measures(NamedTuple):
    """The noise of a picture and, with a clean one, PSNR and SSIM before and after."""

    diagnosis: Diagnosis
    against: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self.diagnosis),
            "warnings": list(self.diagnosis.warnings),
            "reference": self.against,
        }


def measure(noisy: Picture, denoised: Picture, clean: Picture | None) -> Measures:
    """Of a stack: the noise of its middle page, the nearness of all pages."""
    from pydenoise.diagnosis import diagnose

    middle = noisy.pages // 2
    pages = (picture.samples[middle, :, :, : picture.colours] for picture in (noisy, denoised))
    return Measures(diagnose(*pages), None if clean is None else _against(noisy, denoised, clean))


def reference_of(job: Job, reference: Path) -> Path:
    """The clean file for a picture: named itself, or by the picture's own place in a folder.

    Raises
    ------
    FileNotFoundError
        When the folder has no file, or several, of that name.
    """
    if not reference.is_dir():
        return reference
    if (reference / job.place).is_file():
        return reference / job.place
    folder = reference / job.place.parent
    found = sorted(path for path in folder.glob("*") if path.stem == job.source.stem)
    if len(found) != 1:
        raise FileNotFoundError(
            f"{job.source}: {len(found) or 'no'} files in {folder} have its name; "
            "expected one clean picture"
        )
    return found[0]


def check_reference(noisy: Picture, clean: Picture) -> None:
    """Refuse, with a ValueError, a clean picture of another size, or of whole numbers of another
    depth; a mean of captures may well be floating point."""
    if _size(noisy) != _size(clean):
        raise ValueError(f"has {_size(noisy)}, the reference {_size(clean)}; expected the same")
    ours, theirs = noisy.samples.dtype, clean.samples.dtype
    if ours != theirs and "f" not in (ours.kind, theirs.kind):
        raise ValueError(f"holds {ours}, the reference {theirs}; expected one depth: convert one")


def print_picture(title: str, measures: Measures) -> None:
    """A table of one picture's measures."""
    d = measures.diagnosis
    rows = [
        ["noise", _number(d.noise), _number(d.noise_left), ""],
        *(
            [
                f"correlation with the pixel {direction}",
                _number(d.noise_correlation and d.noise_correlation[axis], "+.2f"),
                "",
                _number(d.removed_correlation and d.removed_correlation[axis], "+.2f"),
            ]
            for axis, direction in enumerate(("beside", "below"))
        ),
        ["cut off at the ends", f"{d.clipped:.1%}", "", ""],
    ]
    if d.noise != d.noise_255:
        row = ["noise, of a range of 255", _number(d.noise_255), _number(d.noise_left_255), ""]
        rows.insert(1, row)
    for name, key, form in (("PSNR", "psnr", "{:.2f} dB"), ("SSIM", "ssim", "{:.4f}")):
        if measures.against is not None and measures.against[f"{key}_noisy"] is not None:
            sides = (measures.against[f"{key}_{side}"] for side in ("noisy", "denoised"))
            rows.append([name, *map(form.format, sides), ""])
    print_table(title, ["", "noisy", "denoised", "removed"], rows)


def _size(picture: Picture) -> str:
    pages, height, width, _ = picture.samples.shape
    plural = "s" if pages > 1 else ""
    return f"{pages} page{plural} of {width}x{height} and {picture.colours} colours"


def _number(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else format(value, form)


def _against(noisy: Picture, denoised: Picture, clean: Picture) -> dict[str, Any]:
    import numpy as np
    import torch

    from pydenoise.data import to_tensor
    from pydenoise.metrics import Scene, compare

    pictures = [picture.samples[..., : picture.colours] for picture in (noisy, denoised, clean)]
    known = np.logical_and.reduce([np.isfinite(samples) for samples in pictures])
    bounds = _range(pictures[2][known], clean.samples.dtype)
    filled = (np.where(known, samples, bounds[0]) for samples in pictures)
    scene = Scene(*(torch.cat([to_tensor(page, bounds) for page in pages]) for pages in filled))
    return {**compare([scene]), "value_range": list(bounds)}


def _range(clean: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> tuple[float, float]:
    """What counts as 0 to 1: all that 8 bits hold, else what the clean picture spans."""
    if dtype == "uint8":
        return 0.0, 255.0
    if clean.size and clean.min() < clean.max():
        return float(clean.min()), float(clean.max())
    raise ValueError("the reference is of one value; expected a picture")
