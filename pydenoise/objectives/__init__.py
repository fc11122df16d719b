"""What one training step minimises, and how its gradient gets into the parameters."""

from pydenoise.objectives.noise2noise import Noise2Noise
from pydenoise.objectives.zero_shot import ZeroShot, pair_downsample

__all__ = ["Noise2Noise", "ZeroShot", "pair_downsample"]
