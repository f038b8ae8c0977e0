"""Nouns: frozen dataclasses that check themselves. No input, no output, no clock."""
