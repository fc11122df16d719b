"""What one training step minimises, and how its gradient gets into the parameters."""

from pydenoise.objectives.neighbor2neighbor import Neighbor2Neighbor
from pydenoise.objectives.noise2noise import Noise2Noise
from pydenoise.objectives.objective import Objective
from pydenoise.objectives.zero_shot import ZeroShot, pair_downsample

__all__ = ["Neighbor2Neighbor", "Noise2Noise", "Objective", "ZeroShot", "pair_downsample"]
