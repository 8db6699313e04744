"""`dispatcher dev`: everything on one machine, with a Postgres and a receiver of its own."""
