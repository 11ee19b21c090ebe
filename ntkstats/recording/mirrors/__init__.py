"""Mirrors of the scalars of each record, for other programs."""
