"""`submillion bench`: this package and its peers on the same rows, in turn, each in a process of its own."""
