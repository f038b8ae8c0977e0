"""conf/ to typed facts: compose, decode, resolve every `auto`."""
