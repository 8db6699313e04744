"""The pages of the console, one module for each resource; `ROUTES` of each has their paths."""
