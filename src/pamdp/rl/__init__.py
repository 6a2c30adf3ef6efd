"""The paper's mathematics as pure functions on tensors: no models, no configuration, no logging."""
