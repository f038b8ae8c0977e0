"""Arithmetic: pure functions from facts to facts."""
