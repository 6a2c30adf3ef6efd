"""What writes replies of policies while requests come and go."""
