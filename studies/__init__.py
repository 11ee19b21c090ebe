"""Comparative studies made with ntkstats: ``python -m studies list``."""
