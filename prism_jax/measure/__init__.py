"""Measuring on the device that is there: kernel durations, captured chains, paired host times."""
