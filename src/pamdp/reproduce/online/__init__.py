"""Table 3, Figure 4 and appendix F: methods that learn from simulated users and are evaluated with others."""
