"""What the guide has whoever asks for a machine do: SELECT, then UPDATE."""

LOOK = "SELECT hostname FROM vms WHERE status = 'available' ORDER BY created_at LIMIT 1"
TAKE = "UPDATE vms SET status = 'in-use', email = $2, crd_command = 'echo', updated_at = now() WHERE hostname = $1"
GIVE_BACK = """
    UPDATE vms SET status = 'available', email = NULL, crd_command = NULL, updated_at = now() WHERE hostname = $1
"""
GIVE_BACK_ALL = """
    ALTER TABLE vms DISABLE TRIGGER vm_update_trigger;
    UPDATE vms SET status = 'available', email = NULL, crd_command = NULL WHERE status <> 'available';
    ALTER TABLE vms ENABLE TRIGGER vm_update_trigger;
"""
