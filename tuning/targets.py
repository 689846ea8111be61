"""What can be searched, by name: the one list that the command line, the workers and the tests derive from."""

from collections.abc import Callable, Mapping
from typing import Final

from tuning.frames import Frames
from tuning.objective import LgbmObjective, Objective, Setting
from tuning.selection import SwitchObjective

SWITCHES: Final = "switches"
"""Of the ranker's features; its space follows from the log."""

OBJECTIVES: Final[Mapping[str, Callable[[Frames, Setting], Objective]]] = {
    "lgbm": LgbmObjective,
    SWITCHES: SwitchObjective,
}
"""What makes the trials of each, by its name; a new one is one more line, and one in `tuning.spaces.SPACES`."""
