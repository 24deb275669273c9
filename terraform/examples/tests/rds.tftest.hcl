# terraform test -test-directory=examples/tests -filter=examples/tests/rds.tftest.hcl -var-file=examples/rds.tfvars
mock_provider "aws" {
  source = "./tests/mocks"
}

run "applied" {
  assert {
    condition     = contains(output.settings, "database.host=${output.database.host}")
    error_message = "the database is RDS"
  }
  assert {
    condition     = keys(local.database_clients) == ["allocator"] && contains(output.settings, "transport=hub")
    error_message = "machines speak over the hub, and no database port is open to them"
  }
  assert {
    condition     = length(output.fleet_settings.subnet_ids) == 3 && output.fleet_settings.defaults.instance_type == "m7i.xlarge"
    error_message = "machines are in three zones"
  }
}
