"""Judges: who decides which of two replies fits a person."""
