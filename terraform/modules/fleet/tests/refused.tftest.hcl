# What the fleet's module does not take.
mock_provider "aws" {}

run "bad_names_are_refused" {
  command = plan
  variables {
    name = "Lab_Link"
  }
  expect_failures = [var.name]
}

run "bad_hostnames_are_refused" {
  command = plan
  variables {
    vms = { "VM_1" = {} }
  }
  expect_failures = [var.vms]
}

run "long_hostnames_are_refused" {
  command = plan
  variables {
    vms = { "a23456789-123456789-123456789-123456789-123456789" = {} }
  }
  expect_failures = [var.vms]
}

run "bad_pools_are_refused" {
  command = plan
  variables {
    vms = { vm-1 = { pool = "GPU machines" } }
  }
  expect_failures = [var.vms]
}

run "bad_images_are_refused" {
  command = plan
  variables {
    vms = { vm-1 = { ami_id = "ubuntu" } }
  }
  expect_failures = [var.vms]
}

run "bad_types_are_refused" {
  command = plan
  variables {
    vms = { vm-1 = { instance_type = "large" } }
  }
  expect_failures = [var.vms]
}

run "tiny_disks_are_refused" {
  command = plan
  variables {
    vms = { vm-1 = { disk_gb = 1 } }
  }
  expect_failures = [var.vms]
}

run "bad_default_images_are_refused" {
  command = plan
  variables {
    defaults = { ami_id = "ubuntu" }
  }
  expect_failures = [var.defaults]
}

run "bad_default_types_are_refused" {
  command = plan
  variables {
    defaults = { ami_id = "ami-00000000000000001", instance_type = "large" }
  }
  expect_failures = [var.defaults]
}

run "bad_default_disks_are_refused" {
  command = plan
  variables {
    defaults = { ami_id = "ami-00000000000000001", disk_gb = 1 }
  }
  expect_failures = [var.defaults]
}

run "no_subnets_are_refused" {
  command = plan
  variables {
    subnet_ids = []
  }
  expect_failures = [var.subnet_ids]
}

run "enrolling_without_tls_is_refused" {
  command = plan
  variables {
    allocator_url = "http://lablink.example.org"
  }
  expect_failures = [var.allocator_url]
}

run "a_wheel_without_its_hash_is_refused" {
  command = plan
  variables {
    client_package = "https://example.org/lablink-1.0-py3-none-any.whl"
  }
  expect_failures = [var.client_package]
}

run "a_package_that_ends_the_quotes_is_refused" {
  command = plan
  variables {
    client_package = "https://example.org/'$(id)'.whl#sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  }
  expect_failures = [var.client_package]
}

run "two_clients_are_refused" {
  command = plan
  variables {
    image = "ghcr.io/lab/desktop:1.0"
  }
  expect_failures = [var.client_package]
}

run "an_image_without_a_tag_is_refused" {
  command = plan
  variables {
    client_package = null
    image          = "ghcr.io/lab/desktop"
  }
  expect_failures = [var.image]
}

run "a_boundary_that_is_no_policy_is_refused" {
  command = plan
  variables {
    permissions_boundary = "lablink-test-vm"
  }
  expect_failures = [var.permissions_boundary]
}

run "a_script_without_a_program_is_refused" {
  command = plan
  variables {
    startup_script = "apt-get install blender"
  }
  expect_failures = [var.startup_script]
}

run "a_long_script_is_refused" {
  command = plan
  variables {
    startup_script = "#!/bin/bash\n${join("", [for number in range(0, 760) : format("%012d", number)])}"
  }
  expect_failures = [var.startup_script]
}
