"""Rows as factors: the pullback is cut before the last product of every gradient.

In the order of reading: `_layout` and `_products` name the axes of that product, `_operands` brings
its operands to one form, `_cut` takes it off, `_structure` puts the pieces of a model together,
`_choice` decides what is written out, and `_structured` evaluates a tile.
"""
