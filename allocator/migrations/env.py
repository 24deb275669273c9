"""What Alembic runs for each command: on the connection that allocator/migrate.py opened, or as text."""

from alembic import context

connection = context.config.attributes.get("connection")
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", output_buffer=context.config.output_buffer)
else:
    context.configure(connection=connection)
with context.begin_transaction():
    context.run_migrations()
