"""Inner products of Jacobian rows, written out or kept as factors."""
