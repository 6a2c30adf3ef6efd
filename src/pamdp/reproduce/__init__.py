"""Tables of the paper, made again: trained, judged and written from one command."""
