"""Small data sets that ship with the package, each in its own folder with its source, licence and credits."""
