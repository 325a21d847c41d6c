"""Sizes in bytes by their names."""

KIB = 1024
MIB = 1024 * KIB
