"""The methods of the comparison: each one small file, all with the same data in and the same thing out."""
