"""Unit conversions, as plain factors. SI base units inside; only report/ prints anything else."""

KIB = 2**10
MIB = 2**20
GIB = 2**30
SECONDS_PER_HOUR = 3600.0
SECONDS_PER_DAY = 86400.0
BITS_PER_BYTE = 8
DAYS_PER_YEAR = 365.25
J_PER_KWH = 3.6e6
J_PER_MWH = 3.6e9
W_PER_MW = 1e6
M3_PER_US_GALLON = 3.785411784e-3  # exact: 231 cubic inches of 0.0254 m
LITRES_PER_M3 = 1000.0
CENTS_PER_USD = 100
