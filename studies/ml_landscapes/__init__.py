"""Landscapes of small networks: the figures of the documentation."""
