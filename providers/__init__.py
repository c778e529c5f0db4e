"""Where pods run: one package for each platform."""
