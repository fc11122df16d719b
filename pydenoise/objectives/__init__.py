"""What one training step minimises, and how its gradient gets into the parameters."""

from pydenoise.objectives.noise2noise import Noise2Noise

__all__ = ["Noise2Noise"]
