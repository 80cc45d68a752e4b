"""Where to label next: windows of images, ranked by what a label there is worth."""
