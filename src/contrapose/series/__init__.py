"""Time series: encoders that give a vector a time step, read from tables, arrays and files, and the methods that train them."""
