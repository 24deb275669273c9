"""Machines in the cloud: Terraform makes and removes them, EC2 says which there are."""
