"""The reader's side of `two_tower` in a bundle, beside the channel's table, where the channel is used.

Serving does without it: a fault costs the file only.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from newsrec.errors import BundleError
from newsrec.recall import Channel
from newsrec.recall.two_tower import TwoTower


def write_user_tower(folder: Path, channels: Mapping[str, Channel], at: int, tell: Callable[[str], None]) -> None:
    """Write `recall/two_tower.onnx` and its signature.

    Args:
        folder: Of the bundle, with `recall/`.
        channels: Fitted, by name.
        at: The model is the last one before this moment, ms.
        tell: Hears why there is no file.
    """
    for name, channel in channels.items():
        if not isinstance(channel, TwoTower):
            continue
        if find_spec("onnx") is None:
            tell(f"note: no recall/{name}.onnx, as onnx is not installed (pip install 'newsrec[neural]')")
            continue
        from newsrec.neural.tower_onnx import export_user_tower

        try:
            export_user_tower(channel, at, folder / "recall")
        except BundleError as error:
            tell(f"note: no recall/{name}.onnx: {error}")
