"""Claims of papers, checked at small scale: one file a method, found by its name, and the frame that they share."""
