"""Evaluation: stored judgements, success rates with intervals, agreement, and the report of a run."""
