"""The regression guard: instructions of each kernel, against those on record."""
