"""Runs that already happened, measured from their checkpoints."""

from ntkstats.checkpoints._scan import scan_checkpoints as scan_checkpoints
