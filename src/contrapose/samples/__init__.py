"""Small real data that come with the package: `sample:NAME`."""
