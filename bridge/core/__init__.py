"""Decisions without I/O, clock, randomness or environment: plain values in, plain values out."""
