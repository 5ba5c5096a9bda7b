"""Where things came from and where they went: the path of one rating, and the erasure of one person."""
