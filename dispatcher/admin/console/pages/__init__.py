"""The pages of the console, a module for each thing; `ROUTES` of each says where they are."""
