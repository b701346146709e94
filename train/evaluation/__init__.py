"""What `train.evaluate` is made of: the stories, what paints them, what looks at them, and the report."""
