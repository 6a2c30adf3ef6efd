"""The theory in numbers: PAMDPs small enough to be solved exactly, and the estimators compared on them."""
