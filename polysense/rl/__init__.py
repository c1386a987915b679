"""States of games: frames from environments and recordings, and how well an encoder tells the true state."""

from polysense.rl.collect import collect
from polysense.rl.probing import probe_states
from polysense.rl.reading import import_frames
from polysense.rl.trajectories import Trajectories, read_trajectories

__all__ = ["Trajectories", "collect", "import_frames", "probe_states", "read_trajectories"]
