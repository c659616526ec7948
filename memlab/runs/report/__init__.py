"""``memlab report``: run folders put into one table beside published figures, and pictures of them."""
