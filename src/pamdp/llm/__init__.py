"""Chat models: endpoints, local models and scripted ones behind one protocol, and the wrappers that go around them."""
