"""What scores a model: pure figures in `characters` and `captions`, and the judge, a classifier of its own."""
