"""The errors that newsrec raises on purpose; the command line turns each into one line and exit code 2."""


class NewsrecError(Exception):
    """Something a user can mend. The message says what was expected, what was found, where, and what to do."""


class DataError(NewsrecError):
    """The log cannot be read, or does not hold what the command needs."""


class BundleError(NewsrecError):
    """A bundle is damaged, of another version, or does not fit what is asked of it."""


class UsageError(NewsrecError):
    """Flags or arguments that contradict each other or name something unknown."""
