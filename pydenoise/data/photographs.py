"""The colour photographs that come with scikit-image: something to learn from, without a download.

Read from the files of the installed package; scikit-image itself is not imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydenoise.data.images import Pixels, read
from pydenoise.data.pictures import ImageError

FILES = {
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "chelsea": "chelsea.png",
    "rocket": "rocket.jpg",
    "ihc": "ihc.png",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "motorcycle_left": "motorcycle_left.png",
}


def sample_photographs() -> dict[str, Pixels]:
    """Eight colour photographs, by name.

    Returns
    -------
    dict of str to numpy.ndarray
        uint8 (H, W, 3): astronaut, coffee, chelsea, rocket, ihc, hubble_deep_field, retina and
        motorcycle_left, from 300x451 to 1411x1411 pixels. Nothing is downloaded.

    Raises
    ------
    ImageError
        When scikit-image or one of its files is not there.

    Examples
    --------
    >>> sample_photographs()["chelsea"].shape
    (300, 451, 3)
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImageError("sample photographs: scikit-image is missing; pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    missing = [file for file in FILES.values() if not (folder / file).is_file()]
    if missing:
        raise ImageError(
            f"sample photographs: {folder} lacks {', '.join(missing)}; "
            "reinstall scikit-image from its wheel"
        )
    return {name: read(folder / file)[:, :, :3] for name, file in FILES.items()}
