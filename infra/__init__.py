"""How it is run: the command line, the local stack, the simulation and the demo."""
