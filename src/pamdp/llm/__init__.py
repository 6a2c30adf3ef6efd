"""Chat models: endpoints and local models behind one protocol, and the wrappers that go around them."""
