"""What is written on the axes of figures."""

from studies.sweeps import _figures


def test_numbers_on_axes_are_short():
    values = (0.0, 0.5, 2000.0, 20000.0, 1e6, 5e-4)
    shown = [_figures.short(v) for v in values]
    assert shown == ["0", "0.5", "2000", r"$2\times 10^{4}$", "$10^{6}$", r"$5\times 10^{-4}$"]
