"""Publishing on the Hub: a model repository with its card, and a Space that runs the studio."""
