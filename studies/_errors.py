"""The one error of the studies."""

from ntkstats.errors import NtkStatsError


class StudyError(NtkStatsError, ValueError):
    """A study was asked for something it cannot do.

    The message names what was given and what is expected: a study, a setting, a value, or a
    folder.
    """
