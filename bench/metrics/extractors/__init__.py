"""What turns images into the features that distances between distributions rest on."""
