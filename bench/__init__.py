"""proxybench: measure a small training run properly, say what it means at cluster scale."""

__version__ = "0.1.0"
