"""Unit conversions, as plain factors. SI base units inside; only report/ prints anything else."""

KIB = 2**10
MIB = 2**20
GIB = 2**30
SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 86400.0
BITS_PER_BYTE = 8
