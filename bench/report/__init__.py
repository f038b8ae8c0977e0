"""Facts to text and Markdown; the only place where ms, GiB, TFLOP/s and % appear."""
