"""EC2's part of the cloud, beside moto's: instances that really boot, with disk, network and systemd."""
