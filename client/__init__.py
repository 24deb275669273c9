"""What runs on a VM: it waits for an assignment, runs the command it brings, and leaves the machine clean."""
