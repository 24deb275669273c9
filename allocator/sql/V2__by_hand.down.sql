-- Back to version 1. Its functions are its migrate's; those that are in force go on working there.
DROP INDEX IF EXISTS events_of_hostname;
