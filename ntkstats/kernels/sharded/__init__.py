"""Kernels on many devices and processes."""
