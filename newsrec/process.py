"""What the running process costs."""

import sys


def peak_rss_mb() -> float | None:
    """Largest resident memory of this process so far, MB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3, 1)
