"""Hands: the only rooms that know torch, accelerate, clocks, seeds and subprocesses."""
