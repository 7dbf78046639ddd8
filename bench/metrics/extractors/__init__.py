"""Feature extractors: networks that turn images into the features that metrics compare."""
