"""Show a trained model to the metrics and collect their observations."""
