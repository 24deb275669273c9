# What the parts promise together, against a mock of AWS.
mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name      = "lablink-test"
  region    = "eu-central-1"
  hostname  = "lablink.example.org"
  bucket    = "lablink-test-bucket"
  allocator = { images = { allocator = "ghcr.io/talmolab/lablink-allocator-aws:1.0" } }
  machines  = { client_package = "lablink==1.0" }
}

run "a_container_unless_rds_is_asked_for" {
  assert {
    condition     = output.database == null && contains(output.settings, "database.host=lablink.example.org")
    error_message = "the database is a container on the allocator"
  }
  assert {
    condition     = output.psql == "ssh -t ubuntu@198.51.100.7 sudo docker exec -it lablink-allocator psql -U lablink -d lablink_db"
    error_message = "the psql line is the guide's"
  }
  assert {
    condition     = output.url == "https://lablink.example.org" && output.public_ip == "198.51.100.7" && output.ssh == "ssh ubuntu@198.51.100.7"
    error_message = "one is told where all of it is"
  }
  assert {
    condition     = contains(output.settings, "server.public_url=https://lablink.example.org") && contains(output.settings, "backup.to=s3://lablink-test-bucket/backups")
    error_message = "the allocator's configuration is an output"
  }
}

run "rds" {
  variables {
    database = {}
  }
  assert {
    condition     = output.database.host == "lablink-test.abc.eu-central-1.rds.amazonaws.com" && contains(output.settings, "database.host=${output.database.host}")
    error_message = "the allocator is configured for RDS"
  }
  assert {
    condition     = keys(local.database_clients) == ["allocator", "fleet"]
    error_message = "machines speak to it"
  }
  assert {
    condition     = output.database.master_secret_arn == "arn:aws:secretsmanager:eu-central-1:123456789012:secret:rds"
    error_message = "one is told which secret the master password is in"
  }
}

run "over_the_hub_rds_takes_the_allocator_alone" {
  variables {
    database  = {}
    transport = "hub"
  }
  assert {
    condition     = keys(local.database_clients) == ["allocator"] && contains(output.settings, "transport=hub")
    error_message = "no database port is open to machines"
  }
}

run "the_fleet_is_apart" {
  assert {
    condition     = output.fleet_backend == { bucket = "lablink-test-bucket", key = "fleet/terraform.tfstate", region = "eu-central-1" }
    error_message = "the machines' state is not the platform's"
  }
  assert {
    condition     = output.fleet_settings.permissions_boundary == "arn:aws:iam::123456789012:policy/lablink-test-vm"
    error_message = "machines' roles are made within the boundary"
  }
  assert {
    condition     = output.fleet_settings.defaults.ami_id == "ami-0000000000000abcd" && output.fleet_settings.defaults.instance_type == "t3.large"
    error_message = "a machine is an Ubuntu unless another image is named"
  }
}

run "the_outputs_are_what_the_fleet_takes" {
  module {
    source = "./fleet"
  }
  variables {
    region   = "eu-central-1"
    vms      = { vm-1 = {} }
    settings = run.the_fleet_is_apart.fleet_settings
  }
  assert {
    condition     = keys(output.vms) == ["vm-1"]
    error_message = "a machine comes of it"
  }
}

run "bad_names_are_refused" {
  command = plan
  variables {
    name = "lab--link"
  }
  expect_failures = [var.name]
}

run "odd_regions_are_refused" {
  command = plan
  variables {
    region = "Frankfurt"
    zones  = ["eu-central-1a"]
  }
  expect_failures = [var.region, var.zones]
}

run "ways_to_speak_that_are_none_are_refused" {
  command = plan
  variables {
    transport = "pigeon"
  }
  expect_failures = [var.transport]
}

run "machines_without_a_client_are_refused" {
  command = plan
  variables {
    machines = {}
  }
  expect_failures = [var.machines]
}

run "the_allocators_tags_are_its_own" {
  command = plan
  variables {
    tags = { lablink = "mine" }
  }
  expect_failures = [var.tags]
}
