"""pamdp: assistants that learn who they are talking to by talking to them."""

__version__ = "0.1.0"
