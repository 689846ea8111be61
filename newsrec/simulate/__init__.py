"""A simulated news log with planted truth: the data of `newsrec.train` when no other is given, and of many tests.

The way of a click: `world` (articles, readers) -> `traffic` (who asks, when) -> `exposure` (what is shown) -> `clicks`
(what is chosen) -> `frames` (the canonical log and its truth). `statistics` compares a log with the real ones,
`replay` asks the readers again under another policy.
"""

from pathlib import Path

from newsrec.simulate.clicks import run
from newsrec.simulate.config import SimulationConfig
from newsrec.simulate.frames import Simulation, Truth, assemble, truth_frames
from newsrec.simulate.replay import true_click_rate
from newsrec.simulate.statistics import statistics
from newsrec.simulate.traffic import make_world

__all__ = ["Simulation", "SimulationConfig", "Truth", "simulate", "statistics", "true_click_rate", "write_simulation"]

_DEFAULT = SimulationConfig()


def simulate(config: SimulationConfig = _DEFAULT) -> Simulation:
    """Invent a news log: the same for the same configuration, whatever the machine's threads.

    Args:
        config: Size, seed and planted strengths.

    Returns:
        The log in canonical frames, and the truth that decided its clicks. In the impressions `position` is 1 at the
        top and random within a slate, so the click rate by position is the effect of the position alone;
        `propensity` is the exact chance that the article was in the slate.
    """
    world = make_world(config)
    shown, eligible = run(world)
    return assemble(world, shown, eligible)


def write_simulation(out: str | Path, format: str = "table", config: SimulationConfig = _DEFAULT) -> Simulation:
    """Simulate a log and write it as files that the named format reads again.

    Args:
        out: Folder to write to; made if it is not there.
        format: One of the formats that can be written. What it cannot hold is left out; `table` holds all
            and also gets `truth/<name>.parquet`.
        config: Size, seed and planted strengths.

    Returns:
        What was written.
    """
    from newsrec.data.write import write_log

    simulation = simulate(config)
    write_log(simulation.log, Path(out), format, lossy=True)
    if format == "table":
        folder = Path(out) / "truth"
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in truth_frames(simulation.truth).items():
            frame.write_parquet(folder / f"{name}.parquet")
    return simulation
