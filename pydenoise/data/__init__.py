"""Pictures in, noisy pairs out: files, noise models and the sources that batches are cut from.

Names are loaded when first used, so that importing this package costs neither torch nor Pillow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydenoise.data.brightness import CapturesWarning
    from pydenoise.data.captures import ScenePairs, bursts, stacks, two_folders
    from pydenoise.data.crops import NoisyCrops, SingleCrops
    from pydenoise.data.folders import matching_pictures, on_scale, read_folder, value_range
    from pydenoise.data.images import (
        list_pictures,
        read,
        to_array,
        to_tensor,
        write,
    )
    from pydenoise.data.index import decoded_bytes
    from pydenoise.data.lazy import NoisyOnce, PicturesOnDemand, open_folder
    from pydenoise.data.noise import (
        Bernoulli,
        Gaussian,
        Impulse,
        NoiseModel,
        PointSample,
        Poisson,
        PoissonGaussian,
        Speckle,
        Text,
        generator,
        parse,
    )
    from pydenoise.data.pairs import (
        Augmented,
        PairsError,
        PairSource,
        TensorPairs,
        load_course_file,
    )
    from pydenoise.data.photographs import sample_photographs
    from pydenoise.data.pictures import (
        ImageError,
        MetadataWarning,
        Picture,
        check_writable,
        read_picture,
        write_picture,
    )
    from pydenoise.data.sets import (
        noisy_pictures,
        point_sampled_pairs,
        point_sampled_validation,
        validation_crops,
    )

_ROOM_OF = {
    "CapturesWarning": "brightness",
    "ScenePairs": "captures",
    "bursts": "captures",
    "stacks": "captures",
    "two_folders": "captures",
    "NoisyCrops": "crops",
    "SingleCrops": "crops",
    "matching_pictures": "folders",
    "on_scale": "folders",
    "read_folder": "folders",
    "value_range": "folders",
    "decoded_bytes": "index",
    "NoisyOnce": "lazy",
    "PicturesOnDemand": "lazy",
    "open_folder": "lazy",
    "noisy_pictures": "sets",
    "point_sampled_pairs": "sets",
    "point_sampled_validation": "sets",
    "validation_crops": "sets",
    "ImageError": "pictures",
    "MetadataWarning": "pictures",
    "Picture": "pictures",
    "check_writable": "pictures",
    "read_picture": "pictures",
    "write_picture": "pictures",
    "list_pictures": "images",
    "read": "images",
    "to_array": "images",
    "to_tensor": "images",
    "write": "images",
    "Bernoulli": "noise",
    "Gaussian": "noise",
    "Impulse": "noise",
    "NoiseModel": "noise",
    "PointSample": "noise",
    "Poisson": "noise",
    "PoissonGaussian": "noise",
    "Speckle": "noise",
    "Text": "noise",
    "generator": "noise",
    "parse": "noise",
    "Augmented": "pairs",
    "PairSource": "pairs",
    "PairsError": "pairs",
    "TensorPairs": "pairs",
    "load_course_file": "pairs",
    "sample_photographs": "photographs",
}

__all__ = [
    "Augmented",
    "Bernoulli",
    "CapturesWarning",
    "Gaussian",
    "ImageError",
    "Impulse",
    "MetadataWarning",
    "NoiseModel",
    "NoisyCrops",
    "NoisyOnce",
    "PairSource",
    "PairsError",
    "Picture",
    "PicturesOnDemand",
    "PointSample",
    "Poisson",
    "PoissonGaussian",
    "ScenePairs",
    "SingleCrops",
    "Speckle",
    "TensorPairs",
    "Text",
    "bursts",
    "check_writable",
    "decoded_bytes",
    "generator",
    "list_pictures",
    "load_course_file",
    "matching_pictures",
    "noisy_pictures",
    "on_scale",
    "open_folder",
    "parse",
    "point_sampled_pairs",
    "point_sampled_validation",
    "read",
    "read_folder",
    "read_picture",
    "sample_photographs",
    "stacks",
    "to_array",
    "to_tensor",
    "two_folders",
    "validation_crops",
    "value_range",
    "write",
    "write_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
