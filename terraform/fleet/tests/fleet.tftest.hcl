# What the allocator's root promises, against a mock of AWS.
mock_provider "aws" {}

variables {
  region = "eu-central-1"
  vms    = { vm-1 = { pool = "gpu" }, vm-2 = {} }
  settings = {
    name                 = "lablink-test"
    defaults             = { ami_id = "ami-00000000000000001", instance_type = "g5.xlarge" }
    subnet_ids           = ["subnet-1", "subnet-2"]
    security_group_id    = "sg-vms"
    allocator_url        = "https://lablink.example.org"
    client_package       = "lablink==1.0"
    permissions_boundary = "arn:aws:iam::123456789012:policy/lablink-test-vm"
  }
}

run "machines_by_name" {
  assert {
    condition     = keys(output.vms) == ["vm-1", "vm-2"]
    error_message = "there are the machines that are named"
  }
}

run "none_are_none" {
  variables {
    vms = {}
  }
  assert {
    condition     = length(output.vms) == 0
    error_message = "an empty list is a fleet without machines"
  }
}

run "odd_regions_are_refused" {
  command = plan
  variables {
    region = "Frankfurt"
  }
  expect_failures = [var.region]
}
