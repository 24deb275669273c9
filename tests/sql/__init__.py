"""The rules in the database, tried on a real PostgreSQL with the roles that will use them."""
