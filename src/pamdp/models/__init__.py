"""Models: backbone, planner, critics, generation, packing."""
