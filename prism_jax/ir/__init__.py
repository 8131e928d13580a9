"""Intermediate representations: tensor programs in index notation, and sGraphs."""
