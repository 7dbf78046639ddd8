"""The leaky integrate-and-fire layer on three backends, behind one interface."""
